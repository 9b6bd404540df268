#include "bench/measure.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

namespace hak_bench {
namespace {

// CPU time of all threads of this process, ended ones included.
CpuSeconds UsedCpu() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval &time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return {seconds(usage.ru_utime), seconds(usage.ru_stime)};
}

// The figure of /proc/self/status called `name`, in KiB.
size_t StatusKib(const char *name) {
  FILE *status = fopen("/proc/self/status", "r");
  if (status == nullptr) return 0;
  size_t kib = 0;
  char line[256];
  while (fgets(line, sizeof(line), status) != nullptr) {
    if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), ": %zu kB", &kib) == 1) break;
  }
  fclose(status);
  return kib;
}

}  // namespace

double NowSeconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void SleepSeconds(double seconds) {
  struct timespec left;
  left.tv_sec = static_cast<time_t>(seconds);
  left.tv_nsec = static_cast<long>((seconds - static_cast<double>(left.tv_sec)) * 1e9);
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

size_t PeakRssKib() { return StatusKib("VmHWM"); }
size_t RssKib() { return StatusKib("VmRSS"); }

Random::Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567890abcdefu) {
  if (state_ == 0) state_ = 1;  // the one state xorshift never leaves
  for (int i = 0; i < 16; ++i) Next();
}

Measurement::Measurement() : wall_seconds_(NowSeconds()), cpu_seconds_(UsedCpu()) {}

void Measurement::Stop() {
  wall_seconds_ = NowSeconds() - wall_seconds_;
  const CpuSeconds used = UsedCpu();
  cpu_seconds_ = {used.user - cpu_seconds_.user, used.system - cpu_seconds_.system};
}

void Measurement::Print(const std::string &allocator, uint64_t n_operations) const {
  printf("Allocator: %s\n", allocator.c_str());
  printf("Throughput = %.0f operations per second\n", static_cast<double>(n_operations) / wall_seconds_);
  printf("Operations: %llu in %.6f s, %.6f s user, %.6f s system\n", static_cast<unsigned long long>(n_operations),
         wall_seconds_, cpu_seconds_.user, cpu_seconds_.system);
  printf("Peak RSS: %zu KiB\n", PeakRssKib());
}

}  // namespace hak_bench

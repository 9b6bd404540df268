#include "bench/measure.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

namespace hak_bench {

double NowSeconds() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double UserSeconds() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec) + static_cast<double>(usage.ru_utime.tv_usec) * 1e-6;
}

void SleepSeconds(double seconds) {
  struct timespec left;
  left.tv_sec = static_cast<time_t>(seconds);
  left.tv_nsec = static_cast<long>((seconds - static_cast<double>(left.tv_sec)) * 1e9);
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

size_t PeakRssKib() {
  FILE *status = fopen("/proc/self/status", "r");
  if (status == nullptr) return 0;
  size_t peak_kib = 0;
  char line[256];
  while (fgets(line, sizeof(line), status) != nullptr) {
    if (sscanf(line, "VmHWM: %zu kB", &peak_kib) == 1) break;
  }
  fclose(status);
  return peak_kib;
}

Random::Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567890abcdefu) {
  if (state_ == 0) state_ = 1;  // the one state xorshift never leaves
  for (int i = 0; i < 16; ++i) Next();
}

void OutOfMemory(size_t size) {
  fprintf(stderr, "%s: malloc(%zu) returned NULL\n", program_invocation_short_name, size);
  exit(1);
}

void Corrupted(const Slot &slot) {
  fprintf(stderr, "%s: the block of %zu B at %p was overwritten: its ends are 0x%02x and 0x%02x, not 0x%02x\n",
          program_invocation_short_name, slot.size, static_cast<void *>(slot.block), slot.block[0],
          slot.block[slot.size - 1], slot.Mark());
  exit(1);
}

}  // namespace hak_bench

#include "bench/footprint_meter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "bench/allocator.h"

namespace hak_bench {
namespace {

// The name of a sample's line, where a checkpoint has its own.
constexpr char kSampleName[] = ".";

[[noreturn]] void Unreadable(const char *path) {
  fprintf(stderr, "%s: cannot read %s: %s\n", program_invocation_short_name, path, strerror(errno));
  exit(1);
}

int Open(const char *path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) Unreadable(path);
  return file;
}

// From the page tables: the counters behind statm lag by some pages for each core.
size_t ResidentBytes() {
  constexpr char kPath[] = "/proc/self/smaps_rollup";
  const int file = Open(kPath);
  char text[2048];
  const ssize_t length = read(file, text, sizeof(text) - 1);
  close(file);
  if (length <= 0) Unreadable(kPath);
  text[length] = '\0';
  const char *rss = strstr(text, "\nRss:");
  return rss != nullptr ? strtoull(rss + strlen("\nRss:"), nullptr, 10) * 1024 : 0;
}

size_t CountMappings() {
  constexpr char kPath[] = "/proc/self/maps";
  const int file = Open(kPath);
  char text[4096];
  size_t n = 0;
  for (ssize_t length; (length = read(file, text, sizeof(text))) > 0;) n += std::count(text, text + length, '\n');
  close(file);
  return n;
}

size_t CountFaults() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

double InMiB(size_t bytes) { return static_cast<double>(bytes) / kMiB; }

}  // namespace

void Ledger::Fill(Slot *slot, size_t size) {
  void *block = Malloc(size);
  if (block == nullptr) OutOfMemory(size);
  memset(block, 1, size);
  slot->Fill(block, size);
  live_bytes_.fetch_add(size, std::memory_order_relaxed);
}

void Ledger::Release(Slot *slot) {
  if (!slot->IsIntact()) Corrupted(*slot);
  Free(slot->block);
  live_bytes_.fetch_sub(slot->size, std::memory_order_relaxed);
  *slot = Slot();
}

Snapshot Snapshot::Take() {
  // First, since each of the others may be the one that touches a page of libc.
  const size_t resident_bytes = ResidentBytes();
  return {NowSeconds(), resident_bytes, CountFaults(), CountMappings()};
}

void Meter::PrintHeader() {
  printf("%9s %9s %9s %9s %10s %9s  %s\n", "seconds", "live MiB", "RSS MiB", "RSS/live", "faults", "mappings",
         "checkpoint");
}

void Meter::Report(const char *name, const Snapshot &now) {
  const double live = InMiB(ledger_->live_bytes());
  const double resident = InMiB(now.resident_bytes) - InMiB(start_.resident_bytes);
  char ratio[32] = "-";
  if (live > 0) snprintf(ratio, sizeof(ratio), "%.3f", resident / live);
  printf("%9.2f %9.2f %9.2f %9s %10zu %9zu  %s\n", now.seconds - start_.seconds, live, resident, ratio,
         now.n_faults - start_.n_faults, now.n_mappings, name);
}

void Meter::Sample() {
  if (with_samples_) Checkpoint(kSampleName);
}

}  // namespace hak_bench

// The scenarios of //bench:footprint. Each prepares memory of its own, calls meter.Start(), then allocates and frees,
// and says at checkpoints what that took. README.md describes them.
#ifndef HAKMEM_BENCH_FOOTPRINT_SCENARIOS_H_
#define HAKMEM_BENCH_FOOTPRINT_SCENARIOS_H_

#include <cstddef>
#include <cstdint>

#include "bench/footprint_meter.h"
#include "bench/measure.h"

namespace hak_bench {

struct Bench {
  // `n` in proportion to the size that was asked for, and at least `min`.
  size_t Scaled(size_t n, size_t min = 1) const;
  // Sleeps for the idle time and says what is resident then, and what after malloc_trim(0).
  void IdleAndTrim();

  double scale;
  double idle_seconds;
  uint32_t n_threads;
  uint64_t seed;
  Snapshot at_main;  // before main did anything
  Ledger ledger;
  Meter meter;
};

// A random number below `n`.
size_t Pick(Random *random, size_t n);

// A size between 2^first and 2^(last + 1) - 1: each doubling is as likely as the others, each size within it likewise.
size_t OctaveSize(uint64_t bits, int first, int last);

// Many small blocks (90%: 16 to 1,023 B), some to 32 KiB (9.9%), few to 512 KiB (0.1%).
size_t MixedSize(Random *random);
constexpr size_t kSmallestMixedSize = 16;
constexpr size_t kLargestMixedSize = (size_t{1} << 19) - 1;
// Their mean, rounded up.
constexpr size_t kMeanMixedSize = 1360;

void RunHello(Bench *bench);
void RunIdle(Bench *bench);
void RunSteady(Bench *bench);
void RunPeakSparse(Bench *bench);
void RunPeakEmpty(Bench *bench);
void RunShift(Bench *bench);
void RunShiftRandom(Bench *bench);
void RunOneClass(Bench *bench);
void RunAllClasses(Bench *bench);

void RunStore(Bench *bench);

void RunShortThreads(Bench *bench);
void RunProducers(Bench *bench);
void RunThreads(Bench *bench);
void RunRemoteFrees(Bench *bench);

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_FOOTPRINT_SCENARIOS_H_

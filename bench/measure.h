// Clocks, threads, memory figures and random numbers for benches.
#ifndef HAKMEM_BENCH_MEASURE_H_
#define HAKMEM_BENCH_MEASURE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace hak_bench {

// Makes the compiler believe that the block is used: it may drop a malloc whose block never leaves the function.
inline void Escape(void *block) { asm volatile("" : : "r"(block) : "memory"); }

// Seconds on a clock that only advances, from an arbitrary start.
double NowSeconds();

// Sleeps that long, signals or not.
void SleepSeconds(double seconds);

// The largest resident set this program has had since it was executed, in KiB. Not getrusage's figure, which keeps the
// peak of whatever ran in the process before the exec.
size_t PeakRssKib();

// The resident set now, in KiB.
size_t RssKib();

// xorshift64* of Marsaglia and Vigna: three shifts and a multiplication, so that little but the allocator is measured.
class Random {
 public:
  explicit Random(uint64_t seed);

  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }

 private:
  uint64_t state_;
};

// A number below `range` from 32 random bits, without a division.
inline size_t Below(uint32_t bits, uint32_t range) { return (uint64_t{bits} * range) >> 32; }

// One random slot below `n_slots` and one random size from `smallest` to `smallest + n_sizes - 1`, from one draw.
struct Draw {
  Draw(Random *random, uint32_t n_slots, size_t smallest, uint32_t n_sizes) {
    const uint64_t bits = random->Next();
    slot = Below(static_cast<uint32_t>(bits >> 32), n_slots);
    size = smallest + Below(static_cast<uint32_t>(bits), n_sizes);
  }
  size_t slot;
  size_t size;
};

// A size from `smallest` to `largest`, 1 to 2^31: each doubling is as likely as any other, as in programs, whose blocks
// are mostly small.
inline size_t SizeOfAnyMagnitude(Random *random, size_t smallest, size_t largest) {
  const uint64_t bits = random->Next();
  const auto n_doublings = static_cast<uint32_t>(64 - __builtin_clzl((largest - 1) / smallest | 1));
  const size_t low = smallest << Below(static_cast<uint32_t>(bits >> 32), n_doublings);
  const size_t high = std::min(2 * low - 1, largest);
  return low + Below(static_cast<uint32_t>(bits), static_cast<uint32_t>(high - low + 1));
}

struct CpuSeconds {
  double user;
  double system;
};

// The clocks around what is measured, and the lines that every bench prints. The clocks start when it is made.
class Measurement {
 public:
  Measurement();
  void Stop();

  // After Stop(): the allocator's proof, operations per second, the times, and the peak RSS.
  void Print(const std::string &allocator, uint64_t n_operations) const;

 private:
  // When the measurement started; after Stop() what has passed.
  double wall_seconds_;
  CpuSeconds cpu_seconds_;
};

// Runs `work(index)` in `n_threads` threads, or in this one if that is 1, and waits for them.
template <typename Work>
void RunInThreads(uint64_t n_threads, const Work &work) {
  if (n_threads == 1) return work(uint64_t{0});
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < n_threads; ++i) threads.emplace_back(work, i);
  for (std::thread &thread : threads) thread.join();
}

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_MEASURE_H_

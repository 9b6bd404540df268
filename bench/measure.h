// Clocks, memory figures and random numbers for benches.
#ifndef HAKMEM_BENCH_MEASURE_H_
#define HAKMEM_BENCH_MEASURE_H_

#include <cstddef>
#include <cstdint>

namespace hak_bench {

// Makes the compiler believe that the block is used: it may drop a malloc whose block never leaves the function.
inline void Escape(void *block) { asm volatile("" : : "r"(block) : "memory"); }

// Seconds on a clock that only advances, from an arbitrary start.
double NowSeconds();

// CPU time of all threads of this process in user mode, dead ones included, in seconds.
double UserSeconds();

// Sleeps that long, signals or not.
void SleepSeconds(double seconds);

// The largest resident set this program has had since it was executed, in KiB. Not getrusage's figure, which keeps the
// peak of whatever ran in the process before the exec.
size_t PeakRssKib();

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

// A block whose first and last byte carry a mark of the slot that holds it, so that each block is touched and a block
// that was handed out twice, or overwritten, can be recognised.
struct Slot {
  void Fill(void *new_block, size_t new_size) {
    block = static_cast<unsigned char *>(new_block);
    size = new_size;
    block[0] = Mark();
    block[size - 1] = Mark();
    Escape(block);
  }
  bool IsIntact() const { return block[0] == Mark() && block[size - 1] == Mark(); }
  unsigned char Mark() const {
    return static_cast<unsigned char>((reinterpret_cast<uintptr_t>(this) * 0x9e3779b97f4a7c15u) >> 56);
  }

  unsigned char *block = nullptr;
  size_t size = 0;
};

// Ends the process with status 1 and one line that names the request: a bench without memory has nothing to report.
[[noreturn]] void OutOfMemory(size_t size);

// Likewise for a slot whose marks have changed.
[[noreturn]] void Corrupted(const Slot &slot);

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_MEASURE_H_

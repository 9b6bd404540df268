// What a process takes from the machine at a point of a run, read without allocating: what is measured is the heap.
#ifndef HAKMEM_BENCH_FOOTPRINT_METER_H_
#define HAKMEM_BENCH_FOOTPRINT_METER_H_

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "bench/slot.h"

namespace hak_bench {

constexpr size_t kMiB = size_t{1} << 20;

// Memory of the bench itself: mapped, zero and backed from the start, so that it is part of what was resident then.
// T is valid when it is all zero bytes.
template <typename T>
class MappedArray {
 public:
  explicit MappedArray(size_t n) : n_(n) {
    void *memory =
        mmap(nullptr, n * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) OutOfMemory(n * sizeof(T));
    items_ = static_cast<T *>(memory);
  }
  ~MappedArray() { munmap(items_, n_ * sizeof(T)); }
  MappedArray(const MappedArray &) = delete;
  MappedArray &operator=(const MappedArray &) = delete;

  size_t size() const { return n_; }
  T &operator[](size_t i) { return items_[i]; }
  T *begin() { return items_; }
  T *end() { return items_ + n_; }

 private:
  size_t n_;
  T *items_;
};

// The blocks of the program under test: every byte of each is written, and the bytes asked for are counted.
class Ledger {
 public:
  void Fill(Slot *slot, size_t size);
  // Ends the process if the block's ends have changed.
  void Release(Slot *slot);
  size_t live_bytes() const { return live_bytes_.load(std::memory_order_relaxed); }

 private:
  alignas(128) std::atomic<size_t> live_bytes_{0};
};

struct Snapshot {
  static Snapshot Take();

  double seconds;
  size_t resident_bytes;
  size_t n_faults;
  size_t n_mappings;
};

// Prints one line for each checkpoint of a scenario. One thread at a time may call it.
class Meter {
 public:
  // With `with_samples` the lines include those between the checkpoints.
  Meter(const Ledger *ledger, bool with_samples) : ledger_(ledger), with_samples_(with_samples) {}

  // What is resident now, and the faults so far, are the bench's own and not counted.
  void Start() { start_ = Snapshot::Take(); }
  void Checkpoint(const char *name) { Report(name, Snapshot::Take()); }
  void Report(const char *name, const Snapshot &now);
  void Sample();

  static void PrintHeader();

 private:
  const Ledger *ledger_;
  bool with_samples_;
  Snapshot start_{};
};

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_FOOTPRINT_METER_H_

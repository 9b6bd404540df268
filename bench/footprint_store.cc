// An hour in the life of a key-value store whose values grow old: entries are written, overwritten and evicted, values
// grow sixteenfold in the course of the hour, and what may be stored rises and falls with a tide of 20 minutes. Time is
// virtual: a number of writes, whatever the allocator takes for them.
#include <stdio.h>

#include <algorithm>

#include "bench/footprint_scenarios.h"

namespace hak_bench {
namespace {

constexpr size_t kMinutes = 60;
constexpr size_t kTideMinutes = 20;
constexpr size_t kSmallestValue = 32;

struct Entry {
  Slot key;
  Slot value;
};

class Store {
 public:
  Store(Bench *bench, size_t n_entries) : bench_(bench), entries_(n_entries), random_(bench->seed) {}

  // Overwrites an entry or, as often, adds one; then evicts what exceeds `capacity_bytes`.
  void Write(size_t smallest_value, size_t capacity_bytes) {
    const uint64_t bits = random_.Next();
    const size_t size = smallest_value + Below(static_cast<uint32_t>(bits), static_cast<uint32_t>(7 * smallest_value));
    const bool is_new = n_ == 0 || (bits >> 63 != 0 && n_ < entries_.size());
    Entry *entry = &entries_[is_new ? n_ : Any()];
    if (is_new) {
      bench_->ledger.Fill(&entry->key, 16 + Pick(&random_, 33));
      ++n_;
    } else {
      bench_->ledger.Release(&entry->value);
    }
    bench_->ledger.Fill(&entry->value, size);
    while (n_ > 1 && bench_->ledger.live_bytes() > capacity_bytes) Evict(Any());
  }

 private:
  size_t Any() { return Pick(&random_, n_); }

  void Evict(size_t i) {
    bench_->ledger.Release(&entries_[i].key);
    bench_->ledger.Release(&entries_[i].value);
    const Entry last = entries_[--n_];
    if (i == n_) return;
    entries_[i].key.Fill(last.key.block, last.key.size);
    entries_[i].value.Fill(last.value.block, last.value.size);
    entries_[n_] = Entry();
  }

  Bench *bench_;
  MappedArray<Entry> entries_;
  Random random_;
  size_t n_ = 0;  // the first of entries_ are in use
};

// Half of the full capacity at low tide, all of it 10 minutes later.
size_t CapacityAt(size_t minute, size_t full_bytes) {
  const size_t phase = minute % kTideMinutes;
  const size_t height = std::min(phase, kTideMinutes - phase);
  return full_bytes / 2 + full_bytes / kTideMinutes * height;
}

}  // namespace

void RunStore(Bench *bench) {
  const size_t full_bytes = bench->Scaled(128 * kMiB);
  const size_t writes_per_minute = bench->Scaled(100000);
  Store store(bench, full_bytes / (4 * kSmallestValue));
  bench->meter.Start();
  for (size_t minute = 0; minute < kMinutes; ++minute) {
    const size_t smallest_value = kSmallestValue + kSmallestValue * 15 * minute / (kMinutes - 1);
    const size_t capacity_bytes = CapacityAt(minute, full_bytes);
    for (size_t i = 0; i < writes_per_minute; ++i) store.Write(smallest_value, capacity_bytes);
    if ((minute + 1) % (kTideMinutes / 2) == 0) {
      char name[32];
      snprintf(name, sizeof(name), "minute %zu", minute + 1);
      bench->meter.Checkpoint(name);
    } else {
      bench->meter.Sample();
    }
  }
}

}  // namespace hak_bench

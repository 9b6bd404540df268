// Scenarios of one thread: growth, peaks, churn, and sizes that change.
#include <stdio.h>

#include "bench/footprint_scenarios.h"

namespace hak_bench {
namespace {

// As many slots as mixed blocks need that take `bytes` in all, with a margin for a seed that draws small ones.
size_t SlotsFor(size_t bytes) { return bytes / kMeanMixedSize * 3 / 2 + 64; }

// Fills slots until `bytes` more are live. Returns their number.
size_t FillMixed(Bench *bench, MappedArray<Slot> *slots, Random *random, size_t bytes) {
  const size_t target = bench->ledger.live_bytes() + bytes;
  const size_t sample_every = slots->size() / 50 + 1;
  size_t n = 0;
  while (n < slots->size() && bench->ledger.live_bytes() < target) {
    bench->ledger.Fill(&(*slots)[n++], MixedSize(random));
    if (n % sample_every == 0) bench->meter.Sample();
  }
  return n;
}

// Frees all but each `keep_each`th of `n` blocks; 0 keeps none.
void ReleaseMost(Bench *bench, MappedArray<Slot> *slots, size_t n, size_t keep_each) {
  const size_t sample_every = n / 50 + 1;
  for (size_t i = 0; i < n; ++i) {
    if (keep_each == 0 || i % keep_each != 0) bench->ledger.Release(&(*slots)[i]);
    if (i % sample_every == 0) bench->meter.Sample();
  }
}

void RunPeak(Bench *bench, size_t keep_each) {
  const size_t bytes = bench->Scaled(1024 * kMiB);
  MappedArray<Slot> slots(SlotsFor(bytes));
  Random random(bench->seed);
  bench->meter.Start();
  const size_t n = FillMixed(bench, &slots, &random, bytes);
  bench->meter.Checkpoint("peak");
  ReleaseMost(bench, &slots, n, keep_each);
  bench->meter.Checkpoint("freed");
  bench->IdleAndTrim();
}

enum class Order { kOldestFirst, kRandom };

// Blocks that leave in a given order.
class Queue {
 public:
  Queue(Bench *bench, size_t capacity, Order order)
      : bench_(bench), slots_(capacity), random_(bench->seed), order_(order) {}

  void Add(size_t size) { bench_->ledger.Fill(At(n_++), size); }
  void Remove() {
    Slot *oldest = At(0);
    if (order_ == Order::kRandom) {
      Slot *other = At(Pick(&random_, n_));
      const Slot old = *other;
      other->Fill(oldest->block, oldest->size);
      oldest->Fill(old.block, old.size);
    }
    bench_->ledger.Release(oldest);
    first_ = (first_ + 1) % slots_.size();
    --n_;
  }

 private:
  Slot *At(size_t i) { return &slots_[(first_ + i) % slots_.size()]; }

  Bench *bench_;
  MappedArray<Slot> slots_;
  Random random_;
  Order order_;
  size_t first_ = 0;
  size_t n_ = 0;
};

// Replaces blocks until five times `max_live_bytes` were allocated, seven eighths of that as blocks of `size`.
void MakeDominant(Bench *bench, Queue *queue, Random *random, size_t size, size_t max_live_bytes) {
  const size_t total_bytes = 5 * max_live_bytes;
  size_t allocated_bytes = 0;
  size_t mixed_bytes = 0;
  size_t next_sample = 0;
  while (allocated_bytes < total_bytes) {
    const bool is_mixed = 8 * mixed_bytes < allocated_bytes;
    const size_t next = is_mixed ? MixedSize(random) : size;
    while (bench->ledger.live_bytes() + next > max_live_bytes) queue->Remove();
    queue->Add(next);
    allocated_bytes += next;
    if (is_mixed) mixed_bytes += next;
    if (allocated_bytes < next_sample) continue;
    bench->meter.Sample();
    next_sample += total_bytes / 10;
  }
}

void RunShiftIn(Bench *bench, Order order) {
  constexpr size_t kSizes[] = {48, 640, 96, 2000, 32, 1000, 224, 5000};
  const size_t bytes = bench->Scaled(100 * kMiB, kMiB);
  Queue queue(bench, bytes / kSmallestMixedSize, order);
  Random random(bench->seed);
  bench->meter.Start();
  for (size_t size : kSizes) {
    MakeDominant(bench, &queue, &random, size, bytes);
    char name[32];
    snprintf(name, sizeof(name), "%zu B", size);
    bench->meter.Checkpoint(name);
  }
}

template <typename NextSize>
void RunManyBlocks(Bench *bench, NextSize next_size) {
  MappedArray<Slot> slots(bench->Scaled(4000000));
  Random random(bench->seed);
  bench->meter.Start();
  bench->meter.Checkpoint("start");
  const size_t sample_every = slots.size() / 50 + 1;
  for (size_t i = 0; i < slots.size(); ++i) {
    bench->ledger.Fill(&slots[i], next_size(&random));
    if (i % sample_every == 0) bench->meter.Sample();
  }
  bench->meter.Checkpoint("peak");
  ReleaseMost(bench, &slots, slots.size(), 0);
  bench->meter.Checkpoint("freed");
  bench->IdleAndTrim();
}

}  // namespace

// What is resident when a C++ program's main begins, program and libraries included. Not what it grew by: the allocator
// was at work before.
void RunHello(Bench *bench) {
  Snapshot at_main = bench->at_main;
  at_main.seconds = 0;
  bench->meter.Report("main", at_main);
}

void RunIdle(Bench *bench) {
  const size_t bytes = bench->Scaled(8 * kMiB);
  MappedArray<Slot> slots(SlotsFor(bytes));
  Random random(bench->seed);
  bench->meter.Start();
  const size_t n = FillMixed(bench, &slots, &random, bytes);
  ReleaseMost(bench, &slots, n, 2);
  bench->meter.Checkpoint("freed");
  bench->IdleAndTrim();
}

void RunSteady(Bench *bench) {
  const size_t bytes = bench->Scaled(225 * kMiB);
  MappedArray<Slot> slots(SlotsFor(bytes));
  Random random(bench->seed);
  bench->meter.Start();
  const size_t n = FillMixed(bench, &slots, &random, bytes);
  bench->meter.Checkpoint("filled");
  constexpr size_t kRounds = 20;
  for (size_t round = 1; round <= kRounds; ++round) {
    for (size_t i = 0; i < n; ++i) {
      Slot *slot = &slots[Pick(&random, n)];
      bench->ledger.Release(slot);
      bench->ledger.Fill(slot, MixedSize(&random));
      if (i % (n / 4 + 1) == 0) bench->meter.Sample();
    }
    if (round == kRounds / 4) bench->meter.Checkpoint("5 rounds");
  }
  bench->meter.Checkpoint("20 rounds");
}

void RunPeakSparse(Bench *bench) { RunPeak(bench, 50); }

void RunPeakEmpty(Bench *bench) { RunPeak(bench, 0); }

void RunShift(Bench *bench) { RunShiftIn(bench, Order::kOldestFirst); }

void RunShiftRandom(Bench *bench) { RunShiftIn(bench, Order::kRandom); }

void RunOneClass(Bench *bench) {
  RunManyBlocks(bench, [](Random *) { return size_t{64}; });
}

// All sizes of Tiny and Mid, a mean of 1 KiB.
void RunAllClasses(Bench *bench) {
  RunManyBlocks(bench, [](Random *random) {
    const uint64_t bits = random->Next();
    const size_t kind = Pick(random, 1000);
    return kind < 945 ? 1 + Below(static_cast<uint32_t>(bits), 1024) : OctaveSize(bits, 10, 14);
  });
}

}  // namespace hak_bench

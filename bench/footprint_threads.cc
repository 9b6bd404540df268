// Scenarios of many threads: ones that end and leave blocks, ones that hand blocks over, ones that keep their own.
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>

#include "bench/footprint_scenarios.h"

namespace hak_bench {
namespace {

void StartThread(pthread_t *thread, void *(*run)(void *), void *argument) {
  const int error = pthread_create(thread, nullptr, run, argument);
  if (error != 0) {
    fprintf(stderr, "footprint: cannot start a thread: %s\n", strerror(error));
    exit(1);
  }
}

// A thread that ends soon: it works with a few small blocks and leaves one behind.
struct ShortThread {
  static constexpr size_t kLeftBytes = 200;

  static void *Run(void *argument) {
    auto *self = static_cast<ShortThread *>(argument);
    Slot temporary[16] = {};
    for (Slot &slot : temporary) self->ledger->Fill(&slot, OctaveSize(self->random->Next(), 4, 9));
    self->ledger->Fill(self->left, kLeftBytes);
    for (Slot &slot : temporary) self->ledger->Release(&slot);
    return nullptr;
  }

  Ledger *ledger;
  Random *random;
  Slot *left;
};

// What one producer has allocated and nobody has freed yet. Index i of a block lies in slots[i % kCapacity].
struct alignas(128) Ring {
  static constexpr size_t kCapacity = size_t{1} << 14;

  Slot slots[kCapacity];
  alignas(128) std::atomic<uint64_t> n_produced;  // release publishes the slot to the thread that frees
  alignas(128) std::atomic<uint64_t> n_freed;     // release hands the slot back to the producer
  std::atomic<size_t> freed_bytes;
};

struct Producer {
  static void *Run(void *argument) {
    auto *self = static_cast<Producer *>(argument);
    self->Produce();
    return nullptr;
  }

  void Produce() {
    size_t produced_bytes = 0;
    for (uint64_t i = 0; i < n_blocks; ++i) {
      const size_t size = MixedSize(&random);
      while (i - ring->n_freed.load(std::memory_order_acquire) == Ring::kCapacity ||
             produced_bytes + size > ring->freed_bytes.load(std::memory_order_relaxed) + max_in_flight_bytes) {
        sched_yield();
      }
      ledger->Fill(&ring->slots[i % Ring::kCapacity], size);
      produced_bytes += size;
      ring->n_produced.store(i + 1, std::memory_order_release);
    }
  }

  Ledger *ledger;
  Ring *ring;
  Random random;
  size_t max_in_flight_bytes;
  uint64_t n_blocks;
  pthread_t thread;
};

// Frees what is in the ring. Returns the number of blocks.
uint64_t Drain(Ledger *ledger, Ring *ring) {
  const uint64_t n_produced = ring->n_produced.load(std::memory_order_acquire);
  const uint64_t n_freed = ring->n_freed.load(std::memory_order_relaxed);
  for (uint64_t i = n_freed; i < n_produced; ++i) {
    Slot *slot = &ring->slots[i % Ring::kCapacity];
    const size_t size = slot->size;
    ledger->Release(slot);
    ring->freed_bytes.store(ring->freed_bytes.load(std::memory_order_relaxed) + size, std::memory_order_relaxed);
    ring->n_freed.store(i + 1, std::memory_order_release);
  }
  return n_produced - n_freed;
}

// Frees all `n_blocks` that come. On the way there are nine checkpoints, and ten samples before each.
void DrainAll(Bench *bench, MappedArray<Ring> *rings, uint64_t n_blocks) {
  uint64_t n_freed = 0;
  uint64_t n_hundredths = 1;
  while (n_freed < n_blocks) {
    for (Ring &ring : *rings) {
      n_freed += Drain(&bench->ledger, &ring);
      for (; n_hundredths < 100 && n_freed >= n_blocks * n_hundredths / 100; ++n_hundredths) {
        if (n_hundredths % 10 != 0) {
          bench->meter.Sample();
          continue;
        }
        char name[32];
        snprintf(name, sizeof(name), "%u%% freed", static_cast<unsigned>(n_hundredths));
        bench->meter.Checkpoint(name);
      }
    }
  }
}

// Threads that replace blocks in rounds: in each round every thread replaces half of the slots of one part of the
// array, its own or, where blocks are handed over, the one that its neighbour had in the round before.
class Replacers {
 public:
  Replacers(Bench *bench, size_t bytes, bool hands_over)
      : bench_(bench),
        hands_over_(hands_over),
        n_slots_(bytes / kMeanMixedSize / bench->n_threads + 1),
        slots_(n_slots_ * bench->n_threads),
        replacers_(bench->n_threads) {
    pthread_barrier_init(&barrier_, nullptr, bench->n_threads + 1);
  }
  ~Replacers() { pthread_barrier_destroy(&barrier_); }

  void Run() {
    for (uint32_t i = 0; i < bench_->n_threads; ++i) {
      replacers_[i] = {this, i, 0};
      StartThread(&replacers_[i].thread, RunThread, &replacers_[i]);
    }
    for (uint32_t round = 0; round <= kRounds; ++round) {
      pthread_barrier_wait(&barrier_);  // the round ends
      if (round == 0) {
        bench_->meter.Checkpoint("filled");
      } else if (round == kRounds) {
        bench_->meter.Checkpoint("replaced");
      } else {
        bench_->meter.Sample();
      }
      pthread_barrier_wait(&barrier_);  // the next one begins
    }
    for (Replacer &replacer : replacers_) pthread_join(replacer.thread, nullptr);
    bench_->meter.Checkpoint("threads ended");
    for (Slot &slot : slots_) bench_->ledger.Release(&slot);
    bench_->meter.Checkpoint("freed");
    bench_->IdleAndTrim();
  }

 private:
  static constexpr uint32_t kRounds = 40;

  struct Replacer {
    Replacers *all;
    uint32_t index;
    pthread_t thread;
  };

  static void *RunThread(void *argument) {
    auto *self = static_cast<Replacer *>(argument);
    self->all->Replace(self->index);
    return nullptr;
  }

  void Replace(uint32_t index) {
    Random random(bench_->seed + uint64_t{index} * 0x100000000u);
    for (uint32_t round = 0; round <= kRounds; ++round) {
      const uint32_t part = hands_over_ ? (index + round) % bench_->n_threads : index;
      for (size_t i = part * n_slots_; i < (part + 1) * n_slots_; ++i) {
        Slot *slot = &slots_[i];
        if (slot->block != nullptr) {
          if (random.Next() >> 63 != 0) continue;
          bench_->ledger.Release(slot);
        }
        bench_->ledger.Fill(slot, MixedSize(&random));
      }
      pthread_barrier_wait(&barrier_);
      pthread_barrier_wait(&barrier_);
    }
  }

  Bench *bench_;
  bool hands_over_;
  size_t n_slots_;  // of each thread
  MappedArray<Slot> slots_;
  MappedArray<Replacer> replacers_;
  pthread_barrier_t barrier_;
};

void RunReplacers(Bench *bench, bool hands_over) {
  Replacers replacers(bench, bench->Scaled(225 * kMiB), hands_over);
  bench->meter.Start();
  replacers.Run();
}

}  // namespace

void RunShortThreads(Bench *bench) {
  MappedArray<Slot> left(bench->Scaled(4000));
  Random random(bench->seed);
  bench->meter.Start();
  for (Slot &slot : left) {
    ShortThread arguments{&bench->ledger, &random, &slot};
    pthread_t thread;
    StartThread(&thread, ShortThread::Run, &arguments);
    pthread_join(thread, nullptr);
    if ((&slot - left.begin()) % 100 == 0) bench->meter.Sample();
  }
  bench->meter.Checkpoint("threads ended");
}

void RunProducers(Bench *bench) {
  constexpr size_t kTurnovers = 20;
  MappedArray<Ring> rings(bench->n_threads);
  MappedArray<Producer> producers(bench->n_threads);
  // No less than the largest block, which would wait for ever.
  const size_t max_in_flight_bytes = std::max(bench->Scaled(129 * kMiB) / bench->n_threads, kMiB / 2);
  const uint64_t n_blocks = kTurnovers * max_in_flight_bytes / kMeanMixedSize;
  bench->meter.Start();
  for (uint32_t i = 0; i < bench->n_threads; ++i) {
    const Random random(bench->seed + uint64_t{i} * 0x100000000u);
    producers[i] = {&bench->ledger, &rings[i], random, max_in_flight_bytes, n_blocks, 0};
    StartThread(&producers[i].thread, Producer::Run, &producers[i]);
  }
  DrainAll(bench, &rings, n_blocks * bench->n_threads);
  for (Producer &producer : producers) pthread_join(producer.thread, nullptr);
  bench->meter.Checkpoint("freed");
  bench->IdleAndTrim();
}

void RunThreads(Bench *bench) { RunReplacers(bench, false); }

void RunRemoteFrees(Bench *bench) { RunReplacers(bench, true); }

}  // namespace hak_bench

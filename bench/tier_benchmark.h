// The three micro-benchmarks of every tier, for Google Benchmark: pairs, batches, and blocks handed to another thread.
//
// A tier's own file says how to call it and which sizes it serves:
//
//   class Tiny {             // made and destroyed by each thread of a benchmark: holds the thread's cache, if any
//    public:
//     void *Allocate(size_t size);
//     void Free(void *block);
//   };
//   const bool registered = hak_bench::RegisterTier<Tiny>("tiny", {16, 64, 1024});
//
// One item is one malloc and one free. Each block's first byte is written.
#ifndef HAKMEM_BENCH_TIER_BENCHMARK_H_
#define HAKMEM_BENCH_TIER_BENCHMARK_H_

#include <benchmark/benchmark.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/batch_ring.h"

namespace hak_bench {

// Blocks in a batch: 100, but no more than 32 MiB of them, since a tier may back all of a large block at once.
inline size_t BatchBlocks(size_t size) {
  constexpr size_t kMaxBatchBytes = size_t{32} << 20;
  return std::clamp(kMaxBatchBytes / size, size_t{1}, kMaxBatchBlocks);
}

// A block of `size` bytes in use. Without memory there is nothing to measure, and a partner thread must not wait.
template <typename Tier>
void *AllocateUsed(Tier *tier, size_t size) {
  auto *block = static_cast<unsigned char *>(tier->Allocate(size));
  if (block == nullptr) {
    fprintf(stderr, "out of memory: %zu bytes\n", size);
    abort();
  }
  *block = 1;
  benchmark::DoNotOptimize(block);
  return block;
}

// malloc, free, malloc, free: the same block over and over.
template <typename Tier>
void Pair(benchmark::State &state) {
  const auto size = static_cast<size_t>(state.range(0));
  Tier tier;
  for (auto _ : state) {
    tier.Free(AllocateUsed(&tier, size));
  }
  state.SetItemsProcessed(state.iterations());
}

// A batch of mallocs, then as many frees in the same order: what a cache of a few blocks cannot absorb.
template <typename Tier>
void Batch(benchmark::State &state) {
  const auto size = static_cast<size_t>(state.range(0));
  Tier tier;
  std::vector<void *> blocks(BatchBlocks(size));
  for (auto _ : state) {
    for (void *&block : blocks) block = AllocateUsed(&tier, size);
    for (void *block : blocks) tier.Free(block);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(blocks.size()));
}

// Thread 0 allocates batches, thread 1 frees them: every free is remote. Both run the same number of iterations, so
// that none is left waiting.
template <typename Tier>
void HandOff(benchmark::State &state) {
  static BatchRing ring;
  const auto size = static_cast<size_t>(state.range(0));
  Tier tier;
  const size_t n_blocks = BatchBlocks(size);
  for (auto _ : state) {
    if (state.thread_index() == 0) {
      void **blocks = ring.BeginPut();
      for (size_t i = 0; i < n_blocks; ++i) blocks[i] = AllocateUsed(&tier, size);
      ring.EndPut();
    } else {
      void **blocks = ring.BeginTake();
      for (size_t i = 0; i < n_blocks; ++i) tier.Free(blocks[i]);
      ring.EndTake();
    }
  }
  if (state.thread_index() == 0) state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(n_blocks));
}

// Registers the three under "<name>/pair" and so on, for blocks of each of `sizes` bytes. Returns true, so that it can
// initialise a global of the tier's file.
template <typename Tier>
bool RegisterTier(const std::string &name, const std::vector<int64_t> &sizes) {
  benchmark::internal::Benchmark *benches[] = {
      benchmark::RegisterBenchmark((name + "/pair").c_str(), Pair<Tier>),
      benchmark::RegisterBenchmark((name + "/batch").c_str(), Batch<Tier>),
      benchmark::RegisterBenchmark((name + "/hand_off").c_str(), HandOff<Tier>)->Threads(2)->UseRealTime(),
  };
  for (benchmark::internal::Benchmark *bench : benches) {
    bench->ArgName("size");
    for (int64_t size : sizes) bench->Arg(size);
  }
  return true;
}

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_TIER_BENCHMARK_H_

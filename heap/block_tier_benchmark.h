// What the micro-benchmarks of Tiny and Mid share: a thread's cache over a process's heaps (bench/tier_benchmark.h).
#ifndef HAKMEM_HEAP_BLOCK_TIER_BENCHMARK_H_
#define HAKMEM_HEAP_BLOCK_TIER_BENCHMARK_H_

#include <stdlib.h>

#include "heap/heap.h"
#include "platform/os.h"
#include "superslab/pool.h"

namespace hak_bench {

template <void *(*kMalloc)(hak_cache *cache, size_t size), void (*kFree)(hak_cache *cache, void *p)>
class BlockTier {
 public:
  BlockTier() {
    static Process process;
    if (!hak_heap_attach(&process.heaps, &cache_)) abort();
  }
  ~BlockTier() { hak_heap_detach(&cache_); }
  BlockTier(const BlockTier &) = delete;
  BlockTier &operator=(const BlockTier &) = delete;

  void *Allocate(size_t size) { return kMalloc(&cache_, size); }
  void Free(void *block) { kFree(&cache_, block); }

 private:
  // What all threads share.
  struct Process {
    Process() {
      hak_pool_init(&pool, hak_os_linux());
      hak_heap_set_init(&heaps, &pool, HAK_REFILL_COUNT_DEFAULT, false);
    }
    hak_pool pool{};
    hak_heap_set heaps{};
  };

  hak_cache cache_ = HAK_CACHE_INIT;
};

}  // namespace hak_bench

#endif  // HAKMEM_HEAP_BLOCK_TIER_BENCHMARK_H_

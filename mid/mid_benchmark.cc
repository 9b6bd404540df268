// Micro-benchmarks of Mid alone, without the router.
#include <stdlib.h>

#include "bench/tier_benchmark.h"
#include "heap/heap.h"
#include "mid/mid.h"
#include "platform/os.h"
#include "superslab/pool.h"

namespace {

// What all threads share.
struct Process {
  Process() {
    hak_pool_init(&pool, hak_os_linux());
    hak_heap_set_init(&heaps, &pool, HAK_REFILL_COUNT_DEFAULT, false);
  }
  struct hak_pool pool {};
  struct hak_heap_set heaps {};
};

class Mid {
 public:
  Mid() {
    static Process process;
    cache_.list[0] = HAK_CACHE_NO_BLOCK;  // as HAK_CACHE_INIT, which C++ compilers warn about
    if (!hak_heap_attach(&process.heaps, &cache_)) abort();
  }
  ~Mid() { hak_heap_detach(&cache_); }
  Mid(const Mid &) = delete;
  Mid &operator=(const Mid &) = delete;

  void *Allocate(size_t size) { return hak_mid_malloc(&cache_, size); }
  void Free(void *block) { hak_mid_free(&cache_, block); }

 private:
  struct hak_cache cache_ {};
};

const bool registered = hak_bench::RegisterTier<Mid>("mid", {1025, 4096, 16 << 10, 32 << 10});

}  // namespace

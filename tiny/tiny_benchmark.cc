// Micro-benchmarks of Tiny alone, without the router.
#include <stdlib.h>

#include "bench/tier_benchmark.h"
#include "heap/heap.h"
#include "platform/os.h"
#include "superslab/pool.h"
#include "tiny/tiny.h"

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

class Tiny {
 public:
  Tiny() {
    static Process process;
    cache_.list[0] = HAK_CACHE_NO_BLOCK;  // as HAK_CACHE_INIT, which C++ compilers warn about
    if (!hak_heap_attach(&process.heaps, &cache_)) abort();
  }
  ~Tiny() { hak_heap_detach(&cache_); }
  Tiny(const Tiny &) = delete;
  Tiny &operator=(const Tiny &) = delete;

  void *Allocate(size_t size) { return hak_tiny_malloc(&cache_, size); }
  void Free(void *block) { hak_tiny_free(&cache_, block); }

 private:
  struct hak_cache cache_ {};
};

const bool registered = hak_bench::RegisterTier<Tiny>("tiny", {8, 64, 256, 1024});

}  // namespace

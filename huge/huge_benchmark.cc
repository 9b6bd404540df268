// Micro-benchmarks of Huge alone, without the router.
#include "bench/tier_benchmark.h"
#include "huge/huge.h"
#include "platform/os.h"
#include "superslab/pool.h"

namespace {

// What all threads share. The tier has no caches per thread.
struct Process {
  Process() {
    hak_pool_init(&pool, hak_os_linux());
    hak_huge_init(&huge, &pool, false);
  }
  struct hak_pool pool {};
  struct hak_huge_heap huge {};
};

class Huge {
 public:
  Huge() {
    static Process process;
    huge_ = &process.huge;
  }

  void *Allocate(size_t size) { return hak_huge_malloc(huge_, size, 1, nullptr); }
  void Free(void *block) { hak_huge_free(huge_, block); }

 private:
  struct hak_huge_heap *huge_;
};

const bool registered = hak_bench::RegisterTier<Huge>("huge", {2 << 20, 4 << 20, 32 << 20});

}  // namespace

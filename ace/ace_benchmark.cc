// Micro-benchmarks of ACE alone, without the router.
#include "ace/ace.h"
#include "bench/tier_benchmark.h"
#include "platform/os.h"
#include "superslab/pool.h"

namespace {

// What all threads share.
struct Process {
  Process() {
    hak_pool_init(&pool, hak_os_linux());
    hak_ace_init(&ace, &pool, false);
  }
  struct hak_pool pool {};
  struct hak_ace ace {};
};

class Ace {
 public:
  Ace() {
    static Process process;
    ace_ = &process.ace;
  }
  ~Ace() { hak_ace_cache_flush(ace_, &cache_); }
  Ace(const Ace &) = delete;
  Ace &operator=(const Ace &) = delete;

  void *Allocate(size_t size) { return hak_ace_malloc(ace_, &cache_, size, 1, nullptr); }
  void Free(void *block) { hak_ace_free(ace_, &cache_, block); }

 private:
  struct hak_ace *ace_;
  struct hak_ace_cache cache_ {};
};

const bool registered = hak_bench::RegisterTier<Ace>("ace", {36 << 10, 256 << 10, 1 << 20, (2 << 20) - 4096});

}  // namespace

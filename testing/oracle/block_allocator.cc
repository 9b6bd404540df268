// Tiny and Mid, which work on a heap set.
#include "heap/cache.h"
#include "heap/heap.h"
#include "mid/mid.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"
#include "testing/oracle/pool_allocator.h"
#include "tiny/tiny.h"

namespace hak_oracle {
namespace {

constexpr size_t kBlockAlignment = 16;

struct BlockTier {
  size_t kind_first, kind_last;
  size_t min_alignment;
  void *(*malloc)(hak_cache *cache, size_t size);
  void *(*malloc_aligned)(hak_cache *cache, size_t size, size_t alignment);
  void (*free)(hak_cache *cache, void *p);
  size_t (*block_bytes)(size_t kind);
};

constexpr BlockTier kTiny = {HAK_KIND_TINY_FIRST,     HAK_KIND_TINY_LAST, kBlockAlignment,     hak_tiny_malloc,
                             hak_tiny_malloc_aligned, hak_tiny_free,      hak_tiny_block_bytes};
constexpr BlockTier kMid = {HAK_KIND_MID_FIRST,     HAK_KIND_MID_LAST, HAK_MID_ALIGNMENT,  hak_mid_malloc,
                            hak_mid_malloc_aligned, hak_mid_free,      hak_mid_block_bytes};

size_t KindOf(const void *p) { return hak_entry_kind(hak_registry_find(p)); }

// Gets its heap with its first malloc, like a thread of the router: one that only frees has none.
class BlockThread : public AllocatorThread {
 public:
  BlockThread(const BlockTier &tier, hak_heap_set *heaps) : tier_(tier), heaps_(heaps) {}
  ~BlockThread() override {
    if (cache_.heap != nullptr) hak_heap_detach(&cache_);
  }

  void *Malloc(size_t size, size_t alignment) override {
    if (cache_.heap == nullptr && !hak_heap_attach(heaps_, &cache_)) return nullptr;
    return alignment <= kBlockAlignment ? tier_.malloc(&cache_, size) : tier_.malloc_aligned(&cache_, size, alignment);
  }

  void *Calloc(size_t size, size_t *zero_bytes) override {
    *zero_bytes = 0;
    return Malloc(size, kBlockAlignment);
  }

  void *Resize(void *, size_t) override { return nullptr; }

  void Free(void *p) override { tier_.free(&cache_, p); }

  size_t UsableSize(const void *p) override { return tier_.block_bytes(KindOf(p)); }

  void Trim(size_t keep_bytes) override {
    if (cache_.heap != nullptr) hak_heap_trim(&cache_);
    hak_heap_set_trim(heaps_, &cache_);
    hak_pool_trim(heaps_->pool, keep_bytes);
  }

  void Wait(uint64_t ms) override {
    hak_os_fake_advance_ms(ms);
    if (cache_.heap != nullptr) hak_heap_tick(&cache_);
    hak_heap_set_tick(heaps_, &cache_);
    hak_pool_tick(heaps_->pool);
  }

 private:
  const BlockTier &tier_;
  hak_heap_set *const heaps_;
  hak_cache cache_ = HAK_CACHE_INIT;
};

class BlockAllocator : public PoolAllocator {
 public:
  BlockAllocator(const BlockTier &tier, const TierOptions &options) : PoolAllocator(options), tier_(tier) {
    hak_heap_set_init(&heaps_, pool(), HAK_REFILL_COUNT_DEFAULT, options.diet);
  }

  std::unique_ptr<AllocatorThread> StartThread() override { return std::make_unique<BlockThread>(tier_, &heaps_); }

  size_t min_alignment() const override { return tier_.min_alignment; }

  bool Owns(const void *p) const override { return KindOf(p) >= tier_.kind_first && KindOf(p) <= tier_.kind_last; }

 protected:
  void ReturnAll() override { hak_heap_set_trim(&heaps_, nullptr); }

 private:
  const BlockTier &tier_;
  hak_heap_set heaps_;
};

}  // namespace

std::unique_ptr<Allocator> MakeTiny(const TierOptions &options) {
  return std::make_unique<BlockAllocator>(kTiny, options);
}

std::unique_ptr<Allocator> MakeMid(const TierOptions &options) {
  return std::make_unique<BlockAllocator>(kMid, options);
}

}  // namespace hak_oracle

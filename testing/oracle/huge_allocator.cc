#include "absl/strings/str_cat.h"
#include "huge/huge.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"
#include "testing/oracle/failure.h"
#include "testing/oracle/pool_allocator.h"

namespace hak_oracle {
namespace {

class HugeThread : public AllocatorThread {
 public:
  explicit HugeThread(hak_huge_heap *heap) : heap_(heap) {}

  void *Malloc(size_t size, size_t alignment) override { return hak_huge_malloc(heap_, size, alignment, nullptr); }

  void *Calloc(size_t size, size_t *zero_bytes) override {
    bool zeroed = false;
    void *p = hak_huge_malloc(heap_, size, 1, &zeroed);
    *zero_bytes = zeroed ? hak_huge_usable_size(p) : 0;
    return p;
  }

  // Most blocks may move.
  void *Resize(void *p, size_t size) override { return hak_huge_resize(heap_, p, size, size % 4 != 0); }

  void Free(void *p) override { hak_huge_free(heap_, p); }

  size_t UsableSize(const void *p) override { return hak_huge_usable_size(p); }

  void Trim(size_t keep_bytes) override { hak_huge_trim(heap_, keep_bytes); }

  void Wait(uint64_t ms) override {
    hak_os_fake_advance_ms(ms);
    hak_huge_tick(heap_);
  }

 private:
  hak_huge_heap *const heap_;
};

class HugeAllocator : public PoolAllocator {
 public:
  explicit HugeAllocator(const TierOptions &options) : PoolAllocator(options) {
    hak_huge_init(&heap_, pool(), options.diet);
  }
  ~HugeAllocator() override { hak_huge_destroy(&heap_); }

  std::unique_ptr<AllocatorThread> StartThread() override { return std::make_unique<HugeThread>(&heap_); }

  size_t min_alignment() const override { return HAK_SUPERSLAB_BYTES; }

  bool Owns(const void *p) const override { return hak_entry_kind(hak_registry_find(p)) == HAK_KIND_HUGE; }

 protected:
  void ReturnAll() override {
    hak_huge_trim(&heap_, 0);
    if (heap_.n_live != 0 || heap_.live_bytes != 0) Fail(absl::StrCat(heap_.live_bytes, " bytes are still live"));
    if (heap_.n_cached != 0) Fail(absl::StrCat(heap_.n_cached, " mappings are still cached"));
    if (heap_.refused != nullptr) Fail("mappings that could not be unmapped are still kept");
  }

 private:
  hak_huge_heap heap_;
};

}  // namespace

std::unique_ptr<Allocator> MakeHuge(const TierOptions &options) { return std::make_unique<HugeAllocator>(options); }

}  // namespace hak_oracle

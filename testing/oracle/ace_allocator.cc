#include "ace/ace.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"
#include "testing/oracle/pool_allocator.h"

namespace hak_oracle {
namespace {

class AceThread : public AllocatorThread {
 public:
  explicit AceThread(hak_ace *ace) : ace_(ace) {}
  ~AceThread() override { hak_ace_cache_flush(ace_, &cache_); }

  void *Malloc(size_t size, size_t alignment) override {
    return hak_ace_malloc(ace_, &cache_, size, alignment, nullptr);
  }

  void *Calloc(size_t size, size_t *zero_bytes) override {
    bool zeroed = false;
    void *p = hak_ace_malloc(ace_, &cache_, size, 1, &zeroed);
    *zero_bytes = zeroed ? hak_ace_usable_size(p) : 0;
    return p;
  }

  void *Resize(void *p, size_t size) override { return hak_ace_resize(ace_, p, size) ? p : nullptr; }

  void Free(void *p) override { hak_ace_free(ace_, &cache_, p); }

  size_t UsableSize(const void *p) override { return hak_ace_usable_size(p); }

  void Trim(size_t keep_bytes) override {
    hak_ace_cache_flush(ace_, &cache_);
    hak_ace_trim(ace_, keep_bytes);
    hak_pool_trim(ace_->pool, keep_bytes);
  }

  void Wait(uint64_t ms) override {
    hak_os_fake_advance_ms(ms);
    hak_ace_tick(ace_, &cache_);
    hak_pool_tick(ace_->pool);
  }

 private:
  hak_ace *const ace_;
  hak_ace_cache cache_ = {};
};

class AceAllocator : public PoolAllocator {
 public:
  explicit AceAllocator(const TierOptions &options) : PoolAllocator(options) {
    hak_ace_init(&ace_, pool(), options.diet);
  }
  ~AceAllocator() override { hak_ace_destroy(&ace_); }

  std::unique_ptr<AllocatorThread> StartThread() override { return std::make_unique<AceThread>(&ace_); }

  size_t min_alignment() const override { return 4096; }

  bool Owns(const void *p) const override { return hak_entry_kind(hak_registry_find(p)) == HAK_KIND_ACE; }

 protected:
  void ReturnAll() override { hak_ace_trim(&ace_, 0); }

 private:
  hak_ace ace_;
};

}  // namespace

std::unique_ptr<Allocator> MakeAce(const TierOptions &options) { return std::make_unique<AceAllocator>(options); }

}  // namespace hak_oracle

// For the tests of ace/: a tier over the fake operating system, and blocks that tell an overlap.
#ifndef HAKMEM_ACE_TEST_ACE_H_
#define HAKMEM_ACE_TEST_ACE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include "ace/ace.h"
#include "ace/ace_class.h"
#include "ace/ace_inline.h"
#include "platform/os_fake.h"
#include "superslab/layout.h"
#include "superslab/pool.h"

namespace hak_test {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kAcePage = HAK_ACE_PAGE_BYTES;
constexpr uint64_t kDecayMs = HAK_POOL_PURGE_DELAY_MS;

// A tier over the fake operating system, and one thread's cache. At the end nothing may be left.
class AceTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(4 * kKiB, false); }
  void TearDown() override { Stop(); }

  void Start(size_t page_bytes, bool diet) {
    hak_os_fake_reset(page_bytes);
    hak_pool_init(&pool_, hak_os_fake());
    hak_ace_init(&ace_, &pool_, diet);
    cache_ = std::make_unique<hak_ace_cache>();
    std::memset(cache_.get(), 0, sizeof *cache_);
  }

  void Stop() {
    hak_os_fake_succeed();
    hak_ace_cache_flush(&ace_, cache_.get());
    hak_ace_destroy(&ace_);
    EXPECT_EQ(pool_.n_slabs_used, 0u) << "a SuperSlab did not come back";
    hak_pool_destroy(&pool_);
    EXPECT_EQ(pool_.n_superslabs, 0u);
    EXPECT_EQ(pool_.retain.limit.held_bytes, 0u);
  }

  void Restart(size_t page_bytes, bool diet) {
    Stop();
    Start(page_bytes, diet);
  }

  char *Malloc(size_t size, size_t alignment = 16, bool *zeroed = nullptr) {
    return static_cast<char *>(hak_ace_malloc(&ace_, cache_.get(), size, alignment, zeroed));
  }
  void Free(void *p) { hak_ace_free(&ace_, cache_.get(), p); }

  // Without the cache: straight to the arena.
  char *ArenaMalloc(size_t size, size_t alignment = 16, bool *zeroed = nullptr) {
    return static_cast<char *>(hak_ace_malloc(&ace_, nullptr, size, alignment, zeroed));
  }
  void ArenaFree(void *p) { hak_ace_free(&ace_, nullptr, p); }

  size_t Superslabs() const { return pool_.n_slabs_used / HAK_SUPERSLAB_SLABS; }
  size_t Count(size_t size_class) const { return hak_ace_cache_count(cache_.get(), size_class); }
  size_t Limit(size_t size_class) const {
    return static_cast<size_t>(cache_->end[size_class] - cache_->stacks->slots[size_class]);
  }
  size_t BudgetPages() const { return cache_->budget >> HAK_ACE_EXTENT_PAGES_SHIFT; }
  size_t CachedPages() const { return (cache_->budget - cache_->room) >> HAK_ACE_EXTENT_PAGES_SHIFT; }

  hak_pool pool_;
  hak_ace ace_;
  std::unique_ptr<hak_ace_cache> cache_;
};

// Each word of the block tells the block and the place, so that any overlap shows.
inline void Fill(char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size; i += 512) {
    const uint64_t word = tag * 0x9e3779b97f4a7c15u + i;
    std::memcpy(p + i, &word, 8);
  }
  p[size - 1] = static_cast<char>(tag);
}

inline ::testing::AssertionResult IsFilled(const char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size - 1; i += 512) {
    uint64_t word;
    std::memcpy(&word, p + i, 8);
    if (word != tag * 0x9e3779b97f4a7c15u + i) return ::testing::AssertionFailure() << "at offset " << i;
  }
  if (p[size - 1] != static_cast<char>(tag)) return ::testing::AssertionFailure() << "at the last byte";
  return ::testing::AssertionSuccess();
}

}  // namespace hak_test

#endif  // HAKMEM_ACE_TEST_ACE_H_

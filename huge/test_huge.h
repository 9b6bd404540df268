// For the tests of huge/: a tier over the fake operating system, and blocks that tell an overlap.
#ifndef HAKMEM_HUGE_TEST_HUGE_H_
#define HAKMEM_HUGE_TEST_HUGE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

#include "huge/huge.h"
#include "platform/os_fake.h"
#include "superslab/layout.h"
#include "superslab/pool.h"
#include "superslab/registry.h"
#include "superslab/test_registry.h"

namespace hak_test {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kGiB = 1024 * kMiB;
constexpr uint64_t kDecayMs = HAK_POOL_PURGE_DELAY_MS;

// A tier over the fake operating system. At the end nothing may be left.
class HugeTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(4 * kKiB, false); }
  void TearDown() override { Stop(); }

  void Start(size_t page_bytes, bool diet) {
    hak_os_fake_reset(page_bytes);
    hak_pool_init(&pool_, hak_os_fake());
    pool_.retain.min_bytes = 64 * kGiB;  // the limits of the tier itself are tested
    hak_huge_init(&heap_, &pool_, diet);
    // The regions that the blocks are likely to lie in are there from now on, and no leak.
    char *p = Malloc(4 * kGiB);
    for (size_t offset = 0; offset <= 4 * kGiB; offset += kGiB) hak_registry_cover(hak_os_fake(), Address(p + offset));
    Free(p);
    hak_huge_destroy(&heap_);
    hak_huge_init(&heap_, &pool_, diet);
    base_bytes_ = hak_os_fake_mapped_bytes();
    base_covers_ = hak_test::CountCovers();
  }

  void Stop() {
    hak_os_fake_succeed();
    EXPECT_EQ(heap_.n_live, 0u);
    EXPECT_EQ(heap_.live_bytes, 0u);
    hak_huge_destroy(&heap_);
    EXPECT_EQ(heap_.n_cached, 0u);
    EXPECT_EQ(heap_.cached_bytes, 0u);
    EXPECT_EQ(heap_.refused_bytes, 0u);
    if (!may_leak_) {
      EXPECT_EQ(Mapped(), 0u) << "bytes were not unmapped";
      EXPECT_EQ(hak_test::CountCovers(), base_covers_);
    }
    EXPECT_EQ(pool_.retain.limit.held_bytes, 0u);
    hak_pool_destroy(&pool_);
  }

  void Restart(size_t page_bytes, bool diet) {
    Stop();
    Start(page_bytes, diet);
  }

  static uintptr_t Address(const void *p) { return reinterpret_cast<uintptr_t>(p); }

  // Bytes of mappings, but for regions of the registry that were added since the start.
  size_t Mapped() const {
    const size_t bytes = hak_os_fake_mapped_bytes() - base_bytes_;
    return bytes % sizeof(hak_region) == 0 ? 0 : bytes;
  }

  char *Malloc(size_t size, size_t alignment = 16, bool *zeroed = nullptr) {
    return static_cast<char *>(hak_huge_malloc(&heap_, size, alignment, zeroed));
  }
  void Free(void *p) { hak_huge_free(&heap_, p); }
  char *Resize(void *p, size_t size, bool may_move = true) {
    return static_cast<char *>(hak_huge_resize(&heap_, p, size, may_move));
  }

  hak_pool pool_;
  hak_huge_heap heap_;
  size_t base_bytes_ = 0;
  uint64_t base_covers_ = 0;
  bool may_leak_ = false;
};

constexpr size_t kStep = 64 * kKiB;

// A word in every step tells the block and the place.
inline void Fill(char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size; i += kStep) {
    const uint64_t word = tag * 0x9e3779b97f4a7c15u + i;
    std::memcpy(p + i, &word, 8);
  }
}

inline ::testing::AssertionResult IsFilled(const char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size; i += kStep) {
    uint64_t word;
    std::memcpy(&word, p + i, 8);
    if (word != tag * 0x9e3779b97f4a7c15u + i) return ::testing::AssertionFailure() << "at offset " << i;
  }
  return ::testing::AssertionSuccess();
}

}  // namespace hak_test

#endif  // HAKMEM_HUGE_TEST_HUGE_H_

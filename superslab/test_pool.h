// For the tests of the pool: one over the fake operating system, and what its slabs contain.
#ifndef HAKMEM_SUPERSLAB_TEST_POOL_H_
#define HAKMEM_SUPERSLAB_TEST_POOL_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/poison.h"
#include "platform/os_fake.h"
#include "superslab/layout.h"
#include "superslab/pool.h"
#include "superslab/test_registry.h"

namespace hak_test {

constexpr size_t kSlab = HAK_SLAB_BYTES;
constexpr size_t kAll = HAK_SUPERSLAB_SLABS;

class PoolTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(4096); }

  // All was released, or the test shows a leak.
  void TearDown() override {
    hak_os_fake_succeed();
    EXPECT_EQ(pool_.n_slabs_used, 0u);
    hak_pool_destroy(&pool_);
    EXPECT_EQ(pool_.n_superslabs, 0u);
    EXPECT_EQ(hak_test::CountCovers(), 0u);
  }

  void Start(size_t page_bytes) {
    hak_os_fake_reset(page_bytes);
    hak_pool_init(&pool_, hak_os_fake());
  }

  uintptr_t Acquire(size_t n_slabs) { return hak_pool_acquire(&pool_, n_slabs, HAK_DEMAND_LITTLE, nullptr); }
  uintptr_t Acquire(size_t n_slabs, bool *zeroed) {
    return hak_pool_acquire(&pool_, n_slabs, HAK_DEMAND_LITTLE, zeroed);
  }
  void Release(uintptr_t base, size_t n_slabs = 1) { hak_pool_release(&pool_, base, n_slabs, true); }

  std::vector<uintptr_t> AcquireMany(size_t count, size_t n_slabs = 1) {
    std::vector<uintptr_t> runs;
    for (size_t i = 0; i < count; ++i) runs.push_back(Acquire(n_slabs));
    return runs;
  }
  void ReleaseAll(const std::vector<uintptr_t> &runs, size_t n_slabs = 1) {
    for (uintptr_t run : runs) Release(run, n_slabs);
  }

  // The slabs in use of a SuperSlab with `n_free` free ones; no other SuperSlab has any.
  std::vector<uintptr_t> SuperslabWithFree(size_t n_free) {
    std::vector<uintptr_t> slabs = AcquireMany(kAll);
    for (; n_free != 0; --n_free) {
      Release(slabs.back());
      slabs.pop_back();
    }
    return slabs;
  }

  static uintptr_t SuperslabOf(uintptr_t address) { return address / HAK_SUPERSLAB_BYTES; }
  static void Write(uintptr_t base, size_t n_slabs = 1) {
    void *p = reinterpret_cast<void *>(base);
    hak_unpoison(p, n_slabs * kSlab);
    memset(p, 0xa5, n_slabs * kSlab);
  }
  static bool IsZero(uintptr_t base, size_t n_slabs = 1) {
    const auto *p = reinterpret_cast<const unsigned char *>(base);
    hak_unpoison(p, n_slabs * kSlab);
    return p[0] == 0 && memcmp(p, p + 1, n_slabs * kSlab - 1) == 0;
  }

  hak_pool pool_;
};

}  // namespace hak_test

#endif  // HAKMEM_SUPERSLAB_TEST_POOL_H_

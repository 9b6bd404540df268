// Huge where the operating system refuses: nothing is lost, and service is full again afterwards.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/atomic.h"
#include "huge/huge.h"
#include "huge/test_huge.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"

namespace {

using hak_test::Fill;
using hak_test::HugeTest;
using hak_test::IsFilled;
using hak_test::kGiB;
using hak_test::kKiB;
using hak_test::kMiB;

// One short life; what failed is skipped, all else is checked and freed.
void RunOnce(hak_huge_heap *heap) {
  std::mt19937_64 random(11);
  std::vector<std::pair<char *, size_t>> live;
  for (int i = 0; i < 60; ++i) {
    const size_t size = 2 * kMiB + random() % (6 * kMiB);
    char *p = static_cast<char *>(hak_huge_malloc(heap, size, random() % 4 == 0 ? 4 * kMiB : 16, nullptr));
    if (p != nullptr) {
      Fill(p, size, 1);
      live.emplace_back(p, size);
    }
    if (!live.empty()) {
      auto &[q, old_size] = live[random() % live.size()];
      const size_t new_size = 1 * kMiB + random() % (9 * kMiB);
      char *moved = static_cast<char *>(hak_huge_resize(heap, q, new_size, true));
      if (moved != nullptr) {
        ASSERT_TRUE(IsFilled(moved, std::min(old_size, new_size), 1));
        Fill(moved, new_size, 1);
        q = moved;
        old_size = new_size;
      }
      ASSERT_TRUE(IsFilled(q, old_size, 1));
      ASSERT_GE(hak_huge_usable_size(q), old_size);
    }
    if (live.size() > 4) {
      hak_huge_free(heap, live.front().first);
      live.erase(live.begin());
    }
    hak_os_fake_advance_ms(100);
  }
  for (const auto &block : live) hak_huge_free(heap, block.first);
}

struct Failure {
  const char *name;
  hak_os_fake_call call;
  bool may_leak;
};

class HugeFailureTest : public HugeTest, public ::testing::WithParamInterface<Failure> {};

TEST_P(HugeFailureTest, NothingIsLostWhenAnyOneCallFailsOrAllFromThereOn) {
  const hak_os_fake_call call = GetParam().call;
  may_leak_ = GetParam().may_leak;
  const size_t before = hak_os_fake_count(call);
  RunOnce(&heap_);
  const size_t n_calls = hak_os_fake_count(call) - before;
  ASSERT_GT(n_calls, 5u);
  for (const size_t count : {size_t{1}, SIZE_MAX}) {
    for (size_t nth = 1; nth <= n_calls; nth += 1 + n_calls / 40) {
      Restart(4 * kKiB, false);
      hak_os_fake_fail(call, nth, count);
      RunOnce(&heap_);
      hak_os_fake_succeed();
      ASSERT_EQ(heap_.n_live, 0u);
      char *p = Malloc(8 * kMiB);
      ASSERT_NE(p, nullptr) << "no full service again after call " << nth;
      Free(p);
    }
  }
}

// hak_os_map_aligned cannot give back what the kernel will not take.
INSTANTIATE_TEST_SUITE_P(Calls, HugeFailureTest,
                         ::testing::Values(Failure{"map", HAK_OS_FAKE_MAP, false},
                                           Failure{"remap", HAK_OS_FAKE_REMAP, false},
                                           Failure{"unmap", HAK_OS_FAKE_UNMAP, true}),
                         [](const auto &test) { return std::string(test.param.name); });

TEST_F(HugeTest, AMappingThatCannotBeUnmappedIsKeptWithoutItsPagesAndUsedAgain) {
  char *p = Malloc(10 * kMiB);
  std::memset(p, 1, 10 * kMiB);
  Free(p);
  hak_os_fake_fail(HAK_OS_FAKE_UNMAP, 1, SIZE_MAX);
  EXPECT_EQ(hak_huge_trim(&heap_, 0), 10 * kMiB);
  EXPECT_EQ(heap_.refused_bytes, 10 * kMiB);
  hak_os_fake_succeed();
  bool zeroed = false;
  char *q = Malloc(10 * kMiB, 16, &zeroed);
  EXPECT_EQ(q, p);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(q[0], 0);
  Free(q);
}

TEST_F(HugeTest, WhatCannotBeUnmappedIsNotTriedAgainByEachFree) {
  constexpr size_t kBlocks = 200;
  std::vector<char *> blocks;
  for (size_t i = 0; i < kBlocks; ++i) blocks.push_back(Malloc(2 * kMiB));
  hak_os_fake_fail(HAK_OS_FAKE_UNMAP, 1, SIZE_MAX);
  const size_t before = hak_os_fake_count(HAK_OS_FAKE_UNMAP);
  for (size_t i = 0; i < kBlocks; i += 2) Free(blocks[i]);
  EXPECT_LE(hak_os_fake_count(HAK_OS_FAKE_UNMAP) - before, kBlocks / 2);
  EXPECT_LE(heap_.n_cached, 32u);
  EXPECT_EQ(heap_.cached_bytes + heap_.refused_bytes, kBlocks * kMiB);
  // Nor, all of them, by each trim.
  hak_huge_trim(&heap_, 0);
  const size_t n_tried = hak_os_fake_count(HAK_OS_FAKE_UNMAP), n_purged = hak_os_fake_count(HAK_OS_FAKE_PURGE);
  EXPECT_EQ(hak_huge_trim(&heap_, 0), 0u);
  EXPECT_LE(hak_os_fake_count(HAK_OS_FAKE_UNMAP) - n_tried, 20u);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), n_purged) << "they have no pages";
  // All of it serves again, without a new mapping.
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  for (size_t i = 0; i < kBlocks; i += 2) {
    blocks[i] = Malloc(2 * kMiB);
    ASSERT_NE(blocks[i], nullptr) << i;
  }
  EXPECT_EQ(Malloc(2 * kMiB), nullptr);
  for (char *p : blocks) Free(p);
  hak_huge_trim(&heap_, 0);
  hak_os_fake_succeed();
  hak_huge_trim(&heap_, 0);
  EXPECT_EQ(heap_.refused_bytes, 0u) << "but by one that succeeds";
}

TEST_F(HugeTest, WhatCannotBeUnmappedServesThePool) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "it is a guard";
  char *p = Malloc(4 * kMiB);
  char *q = Malloc(3 * kMiB);
  std::memset(p, 1, 4 * kMiB);
  Free(p);
  Free(q);
  hak_os_fake_fail(HAK_OS_FAKE_UNMAP, 1, SIZE_MAX);
  hak_huge_trim(&heap_, 0);
  EXPECT_TRUE(hak_huge_give_to_pool(&heap_));
  EXPECT_FALSE(hak_huge_give_to_pool(&heap_)) << "3 MiB are not SuperSlabs";
  EXPECT_EQ(heap_.refused_bytes, 3 * kMiB);
  EXPECT_EQ(pool_.n_superslabs, 2u);
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  bool zeroed = false;
  for (int i = 0; i < 2; ++i) {
    const uintptr_t run = hak_pool_acquire(&pool_, HAK_SUPERSLAB_SLABS, HAK_DEMAND_LITTLE, &zeroed);
    EXPECT_TRUE(run == Address(p) || run == Address(p) + HAK_SUPERSLAB_BYTES);
    EXPECT_TRUE(zeroed);
  }
  EXPECT_EQ(hak_pool_acquire(&pool_, 1, HAK_DEMAND_LITTLE, &zeroed), 0u);
  hak_os_fake_succeed();
  hak_pool_release(&pool_, Address(p), HAK_SUPERSLAB_SLABS, false);
  hak_pool_release(&pool_, Address(p) + HAK_SUPERSLAB_BYTES, HAK_SUPERSLAB_SLABS, false);
  hak_pool_trim(&pool_, 0);
}

TEST_F(HugeTest, AMappingThatTheRegistryHasNoMemoryForIsGivenBack) {
  uintptr_t region = 0x7ea000000000;
  while (hak_load_relaxed(&hak_registry.region_offset[region >> HAK_REGION_SHIFT]) != 0) region += 4 * kGiB;
  heap_.last_mapped = region + kGiB;
  const size_t mapped = hak_os_fake_mapped_bytes();
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 2, 1);
  EXPECT_EQ(Malloc(2 * kMiB), nullptr);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), mapped);
  hak_os_fake_succeed();
  char *p = Malloc(2 * kMiB);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), mapped + sizeof(hak_region) + 2 * kMiB);
  Free(p);
}

TEST_F(HugeTest, WhenTheSystemRefusesTheCacheMakesRoom) {
  Free(Malloc(10 * kMiB));
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, 1);
  // Aligned so that the cached mapping does not serve.
  char *p = nullptr;
  for (size_t alignment = 4 * kMiB; p == nullptr && alignment < 64 * kGiB; alignment *= 2)
    p = Malloc(2 * kMiB, alignment);
  EXPECT_NE(p, nullptr);
  Free(p);
}

}  // namespace

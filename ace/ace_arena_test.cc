// The arenas of ACE: how extents are cut, join and change their size, and how free pages return to the operating
// system.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "ace/ace.h"
#include "ace/ace_class.h"
#include "ace/test_ace.h"
#include "platform/os_fake.h"

namespace {

using hak_test::AceTest;
using hak_test::Fill;
using hak_test::IsFilled;
using hak_test::kAcePage;
using hak_test::kDecayMs;
using hak_test::kKiB;
using hak_test::kMiB;

// Extents

TEST_F(AceTest, AThreadsFirstExtentNeedsNoClock) {
  void *p = Malloc(72 * kKiB);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_NOW), 0u);
  Free(p);
}

TEST_F(AceTest, NoMoreThanANinthOfAFreshExtentIsBeyondTheRequest) {
  for (size_t size = 32 * kKiB + 1; size < 2 * kMiB; size += 4093) {
    char *p = ArenaMalloc(size);
    const size_t usable = hak_ace_usable_size(p);
    EXPECT_GE(usable, size);
    EXPECT_LE(usable, size + size / 8 + kAcePage) << size;
    ArenaFree(p);
  }
}

TEST_F(AceTest, FreedNeighboursCoalesceIntoOneSuperslab) {
  std::vector<char *> blocks;
  for (int i = 0; i < 56; ++i) blocks.push_back(ArenaMalloc(36 * kKiB));
  ASSERT_EQ(Superslabs(), 1u);
  // Every second first, so that no free run is next to another until the end.
  for (size_t i = 0; i < blocks.size(); i += 2) ArenaFree(blocks[i]);
  for (size_t i = 1; i < blocks.size(); i += 2) ArenaFree(blocks[i]);
  char *whole = ArenaMalloc(2 * kMiB);
  EXPECT_NE(whole, nullptr);
  EXPECT_EQ(Superslabs(), 1u);
  ArenaFree(whole);
}

TEST_F(AceTest, AFreedHoleIsUsedBeforeNewMemory) {
  std::vector<char *> blocks;
  for (int i = 0; i < 20; ++i) blocks.push_back(ArenaMalloc(400 * kKiB));
  const size_t before = Superslabs();
  ArenaFree(blocks[7]);
  EXPECT_EQ(ArenaMalloc(400 * kKiB), blocks[7]);
  EXPECT_EQ(Superslabs(), before);
  for (char *p : blocks) ArenaFree(p);
}

TEST_F(AceTest, StatisticsTellFreePagesFromThoseOfBlocksAndCaches) {
  auto stats = [this] {
    hak_ace_lock(&ace_);
    hak_ace_stats result = hak_ace_stats_locked(&ace_);
    hak_ace_unlock(&ace_);
    return result;
  };
  EXPECT_EQ(stats().superslab_bytes, 0u);
  EXPECT_EQ(stats().free_bytes, 0u);
  char *p = ArenaMalloc(36 * kKiB);
  EXPECT_EQ(stats().superslab_bytes, 2 * kMiB);
  EXPECT_EQ(stats().free_bytes, 2 * kMiB - 36 * kKiB);
  char *whole = ArenaMalloc(2 * kMiB);
  EXPECT_EQ(stats().superslab_bytes, 4 * kMiB);
  EXPECT_EQ(stats().free_bytes, 2 * kMiB - 36 * kKiB);
  Free(p);  // into the cache
  EXPECT_EQ(stats().free_bytes, 2 * kMiB - 36 * kKiB);
  hak_ace_cache_flush(&ace_, cache_.get());
  EXPECT_EQ(stats().free_bytes, 2 * kMiB);
  ArenaFree(whole);

  // Several free runs in one SuperSlab.
  hak_ace_trim(&ace_, 0);
  char *blocks[5];
  for (char *&block : blocks) block = ArenaMalloc(100 * kKiB);
  ArenaFree(blocks[1]);
  ArenaFree(blocks[3]);
  EXPECT_EQ(stats().superslab_bytes, 2 * kMiB);
  EXPECT_EQ(stats().free_bytes, 2 * kMiB - 3 * hak_ace_usable_size(blocks[0]));
  for (size_t i : {0, 2, 4}) ArenaFree(blocks[i]);
}

TEST_F(AceTest, EmptySuperslabsGoBackToThePoolButForOne) {
  std::vector<char *> blocks;
  for (int i = 0; i < 40; ++i) blocks.push_back(ArenaMalloc(kMiB));
  EXPECT_GE(Superslabs(), 20u);
  for (char *p : blocks) ArenaFree(p);
  EXPECT_EQ(Superslabs(), 1u);
  hak_ace_trim(&ace_, 0);
  EXPECT_EQ(Superslabs(), 0u);
}

TEST_F(AceTest, ShrinkingInPlaceGivesTheTailBack) {
  char *p = ArenaMalloc(2 * kMiB);
  Fill(p, 36 * kKiB, 5);
  ASSERT_TRUE(hak_ace_resize(&ace_, p, 36 * kKiB));
  EXPECT_EQ(hak_ace_usable_size(p), 36 * kKiB);
  char *tail = ArenaMalloc(kMiB);
  EXPECT_EQ(Superslabs(), 1u);
  EXPECT_TRUE(IsFilled(p, 36 * kKiB, 5));
  ArenaFree(p);
  ArenaFree(tail);
}

TEST_F(AceTest, AResizedBlockStaysAQuarterLargerThanItNeedBeAtMost) {
  for (size_t size = 2 * kMiB; size > 40 * kKiB; size -= 13 * kKiB) {
    char *p = ArenaMalloc(2 * kMiB);
    ASSERT_TRUE(hak_ace_resize(&ace_, p, size));
    EXPECT_GE(hak_ace_usable_size(p), size);
    EXPECT_LE(hak_ace_usable_size(p), size + size / 4 + size / 8 + kAcePage);
    ArenaFree(p);
  }
}

TEST_F(AceTest, NoBlockShrinksBelowTheSmallestClass) {
  char *p = ArenaMalloc(kMiB);
  ASSERT_TRUE(hak_ace_resize(&ace_, p, 0));
  EXPECT_EQ(hak_ace_usable_size(p), HAK_ACE_MIN_PAGES * kAcePage);
  ArenaFree(p);
}

TEST_F(AceTest, GrowingInPlaceTakesTheFreePagesThatFollow) {
  char *p = ArenaMalloc(40 * kKiB);
  Fill(p, 40 * kKiB, 6);
  ASSERT_TRUE(hak_ace_resize(&ace_, p, 1900 * kKiB));
  EXPECT_GE(hak_ace_usable_size(p), 1900 * kKiB);
  EXPECT_TRUE(IsFilled(p, 40 * kKiB, 6));
  EXPECT_EQ(Superslabs(), 1u);
  ArenaFree(p);
}

TEST_F(AceTest, GrowingIsRefusedWhereABlockFollowsAndAboveASuperslab) {
  char *p = ArenaMalloc(400 * kKiB);
  char *q = ArenaMalloc(400 * kKiB);
  char *lower = std::min(p, q);
  const size_t usable = hak_ace_usable_size(lower);
  EXPECT_FALSE(hak_ace_resize(&ace_, lower, usable + 1));
  EXPECT_EQ(hak_ace_usable_size(lower), usable);
  EXPECT_FALSE(hak_ace_resize(&ace_, p, 2 * kMiB + 1));
  EXPECT_FALSE(hak_ace_resize(&ace_, p, SIZE_MAX));
  ArenaFree(p);
  ArenaFree(q);
}

TEST_F(AceTest, GrowingTakesTheExactPagesWhereTheClassDoesNotFitAndTheExtentServesTheClassBelow) {
  char *p = ArenaMalloc(512 * kKiB);
  char *behind = ArenaMalloc(36 * kKiB);
  char *wall = ArenaMalloc(400 * kKiB);
  ASSERT_EQ(behind, p + 512 * kKiB);
  ASSERT_EQ(wall, behind + 36 * kKiB);
  ArenaFree(behind);
  // Nine pages follow: the class of 576 KiB does not fit, 548 KiB do.
  ASSERT_TRUE(hak_ace_resize(&ace_, p, 548 * kKiB));
  EXPECT_EQ(hak_ace_usable_size(p), 548 * kKiB);
  Free(p);
  EXPECT_EQ(Malloc(512 * kKiB), p);
  EXPECT_EQ(hak_ace_usable_size(p), 548 * kKiB);
  Free(p);
  ArenaFree(wall);
}

// Return to the operating system

TEST_F(AceTest, FreePagesReturnAfterTheDecayTimeAndNotBefore) {
  char *keep = ArenaMalloc(36 * kKiB);
  char *p = ArenaMalloc(kMiB);
  std::memset(p, 1, kMiB);
  ArenaFree(p);
  hak_os_fake_advance_ms(kDecayMs - 1);
  hak_ace_tick(&ace_, cache_.get());
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 0u);
  hak_os_fake_advance_ms(1);
  hak_ace_tick(&ace_, cache_.get());
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 1u);
  EXPECT_GE(hak_os_fake_purged_bytes(), kMiB);
  bool zeroed = false;
  char *again = ArenaMalloc(kMiB, 16, &zeroed);
  EXPECT_EQ(again, p);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(again[0], 0);
  ArenaFree(again);
  ArenaFree(keep);
}

TEST_F(AceTest, WhatWasPurgedIsNotPurgedAgain) {
  char *keep = ArenaMalloc(36 * kKiB);
  ArenaFree(ArenaMalloc(kMiB));
  for (int i = 0; i < 5; ++i) {
    hak_os_fake_advance_ms(kDecayMs);
    hak_ace_tick(&ace_, cache_.get());
    hak_ace_trim(&ace_, 0);
  }
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 1u);
  ArenaFree(keep);
}

TEST_F(AceTest, DecayIsDrivenByMissesAndByOverflows) {
  char *keep = ArenaMalloc(36 * kKiB);
  ArenaFree(ArenaMalloc(kMiB));
  hak_os_fake_advance_ms(kDecayMs);
  std::vector<char *> blocks;
  for (int i = 0; i < 17; ++i) blocks.push_back(Malloc(36 * kKiB));
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 1u) << "by misses";
  ArenaFree(ArenaMalloc(100 * kKiB));
  hak_os_fake_advance_ms(kDecayMs);
  for (char *p : blocks) Free(p);
  EXPECT_GE(hak_os_fake_count(HAK_OS_FAKE_PURGE), 2u) << "by overflows";
  ArenaFree(keep);
}

TEST_F(AceTest, AnEmptySuperslabLeavesTheTierAfterTheDecayTime) {
  ArenaFree(ArenaMalloc(kMiB));
  EXPECT_EQ(Superslabs(), 1u);
  hak_os_fake_advance_ms(kDecayMs);
  hak_ace_tick(&ace_, cache_.get());
  EXPECT_EQ(Superslabs(), 0u);
}

TEST_F(AceTest, WhatTheLimitRefusesTakesNoAddressSpace) {
  pool_.retain.limit.max_bytes = kMiB - 1;
  EXPECT_EQ(ArenaMalloc(kMiB), nullptr);
  EXPECT_EQ(Superslabs(), 0u);
  pool_.retain.limit.max_bytes = HAK_LIMIT_NONE;
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  EXPECT_EQ(ArenaMalloc(kMiB), nullptr);
  EXPECT_EQ(pool_.retain.limit.held_bytes, 0u) << "what no SuperSlab could be had for";
}

TEST_F(AceTest, TrimKeepsWhatItIsToldToKeep) {
  char *keep = ArenaMalloc(36 * kKiB);
  ArenaFree(ArenaMalloc(kMiB));
  EXPECT_EQ(hak_ace_trim(&ace_, 2 * kMiB), 0u);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 0u);
  EXPECT_EQ(hak_ace_trim(&ace_, 0), kMiB);
  EXPECT_EQ(hak_ace_trim(&ace_, 0), 0u);
  ArenaFree(keep);
}

TEST_F(AceTest, PagesThatCannotBePurgedStayDirtyAndKeepTheirPlace) {
  char *keep = ArenaMalloc(36 * kKiB);
  char *p = ArenaMalloc(kMiB);
  std::memset(p, 1, kMiB);
  ArenaFree(p);
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, SIZE_MAX);
  hak_os_fake_advance_ms(kDecayMs);
  hak_ace_tick(&ace_, cache_.get());
  EXPECT_EQ(hak_ace_trim(&ace_, 0), 0u);
  hak_os_fake_succeed();
  bool zeroed = true;
  char *again = ArenaMalloc(kMiB, 16, &zeroed);
  EXPECT_EQ(again, p);
  EXPECT_FALSE(zeroed);
  ArenaFree(again);
  EXPECT_EQ(hak_ace_trim(&ace_, 0), kMiB) << "they are tried again after they were used";
  ArenaFree(keep);
}

class AcePageSizeTest : public AceTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(AcePageSizeTest, OnlyWholePagesOfTheOperatingSystemArePurgedAndLiveNeighboursKeepTheirContent) {
  Restart(GetParam(), false);
  std::mt19937_64 random(6);
  std::vector<std::pair<char *, size_t>> live;
  for (int i = 0; i < 3000; ++i) {
    const size_t size = 1 + random() % (200 * kKiB);
    bool zeroed = false;
    char *p = ArenaMalloc(size, 16, &zeroed);
    if (zeroed) {
      ASSERT_EQ(std::count(p, p + size, 0), static_cast<ptrdiff_t>(size));
    }
    Fill(p, size, reinterpret_cast<uintptr_t>(p));
    live.emplace_back(p, size);
    if (live.size() > 40) {
      const size_t k = random() % live.size();
      ASSERT_TRUE(IsFilled(live[k].first, live[k].second, reinterpret_cast<uintptr_t>(live[k].first)));
      ArenaFree(live[k].first);
      live[k] = live.back();
      live.pop_back();
    }
    // The fake stops the test at a range that is not whole pages.
    if (i % 50 == 0) hak_ace_trim(&ace_, 0);
  }
  EXPECT_GT(hak_os_fake_count(HAK_OS_FAKE_PURGE), 10u);
  for (const auto &[p, size] : live) {
    ASSERT_TRUE(IsFilled(p, size, reinterpret_cast<uintptr_t>(p)));
    ArenaFree(p);
  }
}

INSTANTIATE_TEST_SUITE_P(PageSizes, AcePageSizeTest, ::testing::Values(4 * kKiB, 16 * kKiB, 64 * kKiB));

TEST_F(AceTest, OnADietNothingIsCachedAndPagesReturnAtOnce) {
  Restart(4 * kKiB, true);
  char *keep = Malloc(36 * kKiB);
  char *p = Malloc(kMiB);
  Free(p);
  EXPECT_EQ(CachedPages(), 0u);
  EXPECT_GE(hak_os_fake_purged_bytes(), kMiB);
  Free(keep);
  EXPECT_EQ(Superslabs(), 0u);
}

TEST_F(AceTest, ATrimReturnsThePagesThatCameWithASuperSlab) {
  for (void *p : {Malloc(2 * kMiB), Malloc(2 * kMiB)}) Free(p);
  hak_ace_cache_flush(&ace_, cache_.get());
  // One was kept, the other is in the pool with its pages.
  char *kept = Malloc(2 * kMiB);
  char *p = Malloc(100 * kKiB);
  EXPECT_GE(hak_ace_trim(&ace_, 0), 2 * kMiB - 128 * kKiB);
  EXPECT_LE(pool_.retain.limit.held_bytes, 2 * kMiB + 128 * kKiB);
  Free(p);
  Free(kept);
}

}  // namespace

// The cache of Huge: which mappings stay after their blocks were freed, how they serve again, and when they leave.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "huge/huge.h"
#include "huge/test_huge.h"
#include "platform/os_fake.h"

namespace {

using hak_test::Fill;
using hak_test::HugeTest;
using hak_test::IsFilled;
using hak_test::kDecayMs;
using hak_test::kGiB;
using hak_test::kKiB;
using hak_test::kMiB;

TEST_F(HugeTest, WhatIsBeyondWhatTheProcessKeepsLeavesAtOnceUntilItIsMissed) {
  pool_.retain.min_bytes = 4 * kMiB;
  Free(Malloc(10 * kMiB));
  EXPECT_EQ(heap_.cached_bytes, 0u);
  EXPECT_EQ(Mapped(), 0u);
  for (int i = 0; i < 3; ++i) {
    char *p = Malloc(10 * kMiB);
    Free(p);
    EXPECT_EQ(heap_.cached_bytes, 10 * kMiB) << "it would have been needed again";
  }
  hak_os_fake_advance_ms(kDecayMs);
  hak_huge_tick(&heap_);
  Free(Malloc(10 * kMiB));
  EXPECT_EQ(heap_.cached_bytes, 0u) << "it was not needed again";
}

class HugeExcess : public HugeTest {
 protected:
  void SetUp() override {
    HugeTest::SetUp();
    pool_.retain.min_bytes = 4 * kMiB;
    pool_.retain.learned_bytes = kGiB;
    hak_retain_trimmed(&pool_.retain);
    hak_os_fake_advance_ms(100);
    Free(Malloc(20 * kMiB));
  }

  void Grow(size_t bytes) {
    hak_retain_took_pages(&pool_.retain, bytes, 0);
    grown_bytes_ += bytes;
  }

  size_t CachedAfter(uint64_t ms) {
    hak_os_fake_advance_ms(ms);
    hak_huge_return_excess(&heap_);
    return heap_.cached_bytes;
  }

  void TearDown() override {
    hak_retain_lost_pages(&pool_.retain, grown_bytes_);
    HugeTest::TearDown();
  }

  size_t grown_bytes_ = 0;
};

TEST_F(HugeExcess, LeavesWhenTheProcessHasGrownAndKeepsMuchLess) {
  EXPECT_EQ(CachedAfter(30), 20 * kMiB);
  Grow(40 * kMiB);
  EXPECT_EQ(CachedAfter(30), 20 * kMiB) << "a process of 40 MiB may have 16 more: 4 are no reason";
  Grow(20 * kMiB);
  EXPECT_EQ(CachedAfter(30), 0u) << "one of 60 MiB an eighth";
  EXPECT_EQ(Mapped(), 0u);
  EXPECT_EQ(pool_.retain.ghost_bytes, 20 * kMiB) << "it may be missed yet";
}

TEST_F(HugeExcess, StaysForAMomentSinceItMayBeUsedAgain) {
  Grow(60 * kMiB);
  EXPECT_EQ(CachedAfter(5), 20 * kMiB);
  EXPECT_EQ(CachedAfter(30), 0u);
}

TEST_F(HugeTest, WhatIsRefusedWasNotMissed) {
  pool_.retain.min_bytes = 4 * kMiB;
  Free(Malloc(10 * kMiB));
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  EXPECT_EQ(hak_huge_malloc(&heap_, 100 * kMiB, 16, nullptr), nullptr);
  hak_os_fake_succeed();
  EXPECT_EQ(pool_.retain.learned_bytes, 0u);
}

TEST_F(HugeTest, AFreedMappingServesTheNextRequestWithoutASystemCall) {
  char *p = Malloc(10 * kMiB);
  Free(p);
  const size_t calls = hak_os_fake_count(HAK_OS_FAKE_ANY);
  for (int i = 0; i < 100; ++i) {
    char *q = Malloc(10 * kMiB - i * kKiB);
    EXPECT_EQ(q, p);
    Free(q);
  }
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_ANY), calls);
}

TEST_F(HugeTest, AddressSpaceIsUsedAgainWhereNothingIsCached) {
  Stop();
  Start(4 * kKiB, true);
  char *p = Malloc(10 * kMiB);
  Free(p);
  for (int i = 0; i < 100; ++i) {
    char *q = Malloc(10 * kMiB);
    EXPECT_EQ(q, p);
    Free(q);
  }
}

TEST_F(HugeTest, TheSmallestCachedMappingThatIsLargeEnoughIsTaken) {
  char *p20 = Malloc(20 * kMiB);
  char *p10 = Malloc(10 * kMiB);
  char *p12 = Malloc(12 * kMiB);
  Free(p20);
  Free(p12);
  Free(p10);
  EXPECT_EQ(Malloc(11 * kMiB), p12);
  EXPECT_EQ(Malloc(10 * kMiB), p10);
  EXPECT_EQ(Malloc(19 * kMiB), p20);
  for (char *p : {p10, p12, p20}) Free(p);
}

TEST_F(HugeTest, AMuchLargerCachedMappingIsSplitAndBothPartsAreUsed) {
  char *p = Malloc(20 * kMiB);
  Fill(p, 20 * kMiB, 1);
  Free(p);
  const size_t maps = hak_os_fake_count(HAK_OS_FAKE_MAP);
  char *head = Malloc(8 * kMiB);
  char *tail = Malloc(12 * kMiB);
  EXPECT_EQ(head, p);
  EXPECT_EQ(tail, p + 8 * kMiB);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_MAP), maps);
  Fill(head, 8 * kMiB, 2);
  Fill(tail, 12 * kMiB, 3);
  EXPECT_TRUE(IsFilled(head, 8 * kMiB, 2));
  EXPECT_TRUE(IsFilled(tail, 12 * kMiB, 3));
  Free(head);
  Free(tail);
}

TEST_F(HugeTest, PartsThatAreFreedBecomeOneMappingAgain) {
  char *p = Malloc(24 * kMiB);
  Free(p);
  char *parts[] = {Malloc(4 * kMiB + 1), Malloc(6 * kMiB), Malloc(10 * kMiB)};
  EXPECT_EQ(parts[0], p);
  EXPECT_EQ(parts[1], p + 6 * kMiB);
  EXPECT_EQ(parts[2], p + 12 * kMiB);
  Free(parts[1]);
  Free(parts[0]);
  Free(parts[2]);
  EXPECT_EQ(heap_.n_cached, 1u);
  EXPECT_EQ(heap_.cached_bytes, 24 * kMiB);
  EXPECT_EQ(Malloc(24 * kMiB), p);
  Free(p);
}

TEST_F(HugeTest, ASmallPieceThatIsUsedAgainAndAgainDoesNotKeepTheRest) {
  Free(Malloc(64 * kMiB));
  for (int i = 0; i < 3; ++i) {
    char *piece = Malloc(2 * kMiB);
    hak_os_fake_advance_ms(kDecayMs / 2);
    Free(piece);
  }
  EXPECT_LE(heap_.cached_bytes, 2 * kMiB);
  // A small neighbour does not make the whole old either.
  Free(Malloc(64 * kMiB));
  char *piece = Malloc(2 * kMiB);
  char *rest = Malloc(62 * kMiB);
  Free(piece);
  hak_os_fake_advance_ms(kDecayMs / 2);
  Free(rest);
  hak_os_fake_advance_ms(kDecayMs / 2);
  hak_huge_tick(&heap_);
  EXPECT_GE(heap_.cached_bytes, 62 * kMiB);
}

TEST_F(HugeTest, NeighboursFromDifferentMappingsStayApartSinceTheKernelWouldNotMoveThemAsOne) {
  char *p = Malloc(4 * kMiB);
  char *q = Malloc(4 * kMiB);
  Free(p);
  Free(q);
  EXPECT_EQ(heap_.n_cached, 2u);
}

// Two sizes in turn find their pages again.
TEST_F(HugeTest, TheRestOfAMappingKeepsItsPagesWhereThatIsLittleInAll) {
  constexpr size_t kRest = 2 * kMiB - 4096;
  pool_.retain.min_bytes = 4 * kMiB;
  char *p = Malloc(4 * kMiB);
  char *other = Malloc(4 * kMiB);
  std::memset(p, 1, 4 * kMiB);
  std::memset(other, 1, 4 * kMiB);
  Free(p);
  char *q = Malloc(4 * kMiB - kRest);
  ASSERT_EQ(q, p);
  EXPECT_EQ(std::count(q, q + 4 * kMiB, 1), static_cast<ptrdiff_t>(4 * kMiB));
  EXPECT_EQ(heap_.rest_bytes, kRest);
  Free(other);
  char *r = Malloc(4 * kMiB - kRest);
  ASSERT_EQ(r, other);
  EXPECT_EQ(std::count(r + 4 * kMiB - kRest, r + 4 * kMiB, 0), static_cast<ptrdiff_t>(kRest)) << "too much in all";
  Free(r);
  EXPECT_EQ(heap_.rest_bytes, kRest);
  Free(q);
  EXPECT_EQ(heap_.rest_bytes, 0u);
}

TEST_F(HugeTest, NoMoreThanAThirdBeyondTheRequestHoldsOldPages) {
  heap_.rest_bytes = pool_.retain.min_bytes;  // others have kept as much as may be
  for (int round = 0; round < 2; ++round) {
    char *p = Malloc(20 * kMiB);
    std::memset(p, 1, 20 * kMiB);
    Free(p);
    char *q = Malloc(4 * kMiB + 1);
    EXPECT_EQ(q, p);
    const size_t usable = hak_huge_usable_size(q);
    EXPECT_LE(usable, 6 * kMiB);
    EXPECT_EQ(std::count(q + 4 * kMiB + 4096, q + usable, 0), static_cast<ptrdiff_t>(usable - 4 * kMiB - 4096));
    Free(q);
    char *r = Malloc(19 * kMiB);
    EXPECT_EQ(r, p);
    EXPECT_EQ(hak_huge_usable_size(r), 20 * kMiB);
    Free(r);
  }
  char *p = Malloc(4 * kMiB);
  std::memset(p, 1, 4 * kMiB);
  Free(p);
  char *q = Malloc(3 * kMiB);
  EXPECT_EQ(q, p);
  EXPECT_EQ(std::count(q, q + hak_huge_usable_size(q), 1), static_cast<ptrdiff_t>(4 * kMiB));
  Free(q);
}

TEST_F(HugeTest, ASmallerCachedMappingIsGrownSoThatItsPagesAreUsedAgain) {
  char *p = Malloc(16 * kMiB);
  std::memset(p, 1, 16 * kMiB);
  Free(p);
  bool zeroed = true;
  char *q = Malloc(20 * kMiB);
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(heap_.n_cached, 0u);
  // Fresh pages would be zero.
  EXPECT_EQ(std::count(q, q + 16 * kMiB, 1), static_cast<ptrdiff_t>(16 * kMiB));
  EXPECT_EQ(std::count(q + 16 * kMiB, q + 20 * kMiB, 0), static_cast<ptrdiff_t>(4 * kMiB));
  Free(q);
  // For zeroed memory that would not do.
  q = Malloc(30 * kMiB, 16, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(q[0], 0);
  Free(q);
}

TEST_F(HugeTest, TheCacheIsBoundedInNumber) {
  std::vector<char *> blocks;
  for (int i = 0; i < 80; ++i) blocks.push_back(Malloc(4 * kKiB));
  for (char *p : blocks) Free(p);
  EXPECT_LE(heap_.n_cached, 32u);
  EXPECT_GE(heap_.n_cached, 16u);
}

TEST_F(HugeTest, CachedMappingsLeaveAfterTheDecayTimeAndNotBefore) {
  Free(Malloc(10 * kMiB));
  hak_os_fake_advance_ms(kDecayMs - 1);
  hak_huge_tick(&heap_);
  EXPECT_EQ(heap_.n_cached, 1u);
  hak_os_fake_advance_ms(1);
  hak_huge_tick(&heap_);
  EXPECT_EQ(heap_.n_cached, 0u);
  EXPECT_EQ(Mapped(), 0u);
}

TEST_F(HugeTest, DecayIsDrivenByMallocAndByFree) {
  char *other = Malloc(2 * kMiB);
  Free(Malloc(30 * kMiB));
  hak_os_fake_advance_ms(kDecayMs);
  Free(other);
  EXPECT_EQ(heap_.cached_bytes, 2 * kMiB);
  hak_os_fake_advance_ms(kDecayMs);
  char *p = Malloc(3 * kMiB, 64 * kMiB);  // nothing cached is so aligned, most of the time
  Free(p);
  EXPECT_LE(heap_.n_cached, 1u);
}

TEST_F(HugeTest, TrimUnmapsTheLongestUnusedAndKeepsWhatItIsToldToKeep) {
  char *p = Malloc(10 * kMiB);
  char *q = Malloc(20 * kMiB);
  Free(p);
  Free(q);
  EXPECT_EQ(hak_huge_trim(&heap_, 20 * kMiB), 10 * kMiB);
  EXPECT_EQ(hak_huge_trim(&heap_, 20 * kMiB), 0u);
  EXPECT_EQ(Malloc(20 * kMiB), q);
  Free(q);
  EXPECT_EQ(hak_huge_trim(&heap_, 0), 20 * kMiB);
}

TEST_F(HugeTest, OnADietNothingIsCached) {
  Restart(4 * kKiB, true);
  for (int i = 0; i < 5; ++i) Free(Malloc(10 * kMiB));
  EXPECT_EQ(heap_.n_cached, 0u);
  EXPECT_EQ(Mapped(), 0u);
}

}  // namespace

// The pool over a fake operating system: growth, choice of runs, decay, trim, and every failure of the system beneath.
#include "superslab/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "base/compiler.h"
#include "base/poison.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"
#include "superslab/test_pool.h"
#include "superslab/test_registry.h"

namespace {

using hak_test::kAll;
using hak_test::kSlab;

using Pool = hak_test::PoolTest;

// Growth

TEST_F(Pool, MapsNothingBeforeTheFirstRequest) { EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_MAP), 0u); }

TEST_F(Pool, AsksForTheTimeOnlyWhereSomethingIsUnused) {
  uintptr_t first = Acquire(1);
  uintptr_t second = Acquire(1);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_NOW), 0u);
  Release(first);
  size_t count = hak_os_fake_count(HAK_OS_FAKE_NOW);
  EXPECT_GT(count, 0u);
  first = Acquire(2);
  EXPECT_GT(hak_os_fake_count(HAK_OS_FAKE_NOW), count);
  Release(first, 2);
  Release(second);
}

TEST_F(Pool, FillsASuperslabWith32DistinctSlabsAndThenMapsAnother) {
  std::vector<uintptr_t> slabs = AcquireMany(32);
  std::set<uintptr_t> distinct(slabs.begin(), slabs.end());
  EXPECT_EQ(distinct.size(), 32u);
  EXPECT_EQ(SuperslabOf(*distinct.begin()), SuperslabOf(*distinct.rbegin()));
  EXPECT_EQ(pool_.n_superslabs, 1u);
  EXPECT_EQ(pool_.n_slabs_used, 32u);

  slabs.push_back(Acquire(1));
  EXPECT_EQ(pool_.n_superslabs, 2u);
  EXPECT_EQ(pool_.n_slabs_used, 33u);
  EXPECT_NE(SuperslabOf(slabs[32]), SuperslabOf(slabs[0]));
  ReleaseAll(slabs);
}

TEST_F(Pool, HasNoFixedMaximumOfSuperslabs) {
  std::vector<uintptr_t> runs = AcquireMany(300, kAll);
  std::set<uintptr_t> distinct(runs.begin(), runs.end());
  EXPECT_EQ(distinct.count(0), 0u);
  EXPECT_EQ(distinct.size(), 300u);
  EXPECT_EQ(pool_.n_superslabs, 300u);
  ReleaseAll(runs, kAll);
  hak_pool_trim(&pool_, 0);
  EXPECT_EQ(pool_.n_superslabs, 0u);
}

TEST_F(Pool, GrowsByTwoNeighboursForAHotClass) {
  std::vector<uintptr_t> slabs;
  for (int i = 0; i < 64; ++i) slabs.push_back(hak_pool_acquire(&pool_, 1, HAK_DEMAND_MANY, nullptr));
  EXPECT_EQ(pool_.n_superslabs, 2u);
  std::set<uintptr_t> distinct(slabs.begin(), slabs.end());
  EXPECT_EQ(distinct.size(), 64u);
  EXPECT_EQ(*distinct.rbegin() - *distinct.begin(), 63 * kSlab);
  ReleaseAll(slabs);
}

TEST_F(Pool, GrowsByOneForAHotClassWhenThereIsNoRoomForTwo) {
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, 1);
  uintptr_t slab = hak_pool_acquire(&pool_, 1, HAK_DEMAND_MANY, nullptr);
  EXPECT_NE(slab, 0u);
  EXPECT_EQ(pool_.n_superslabs, 1u);
  Release(slab);
}

// Choice

TEST_F(Pool, AlignsRunsToTheirLength) {
  std::vector<std::pair<uintptr_t, size_t>> runs;
  for (int i = 0; i < 20; ++i) {
    for (size_t n_slabs = 1; n_slabs <= kAll; n_slabs *= 2) {
      runs.emplace_back(Acquire(n_slabs), n_slabs);
      EXPECT_EQ(runs.back().first % (n_slabs * kSlab), 0u) << n_slabs;
    }
  }
  // 20 * 32 slabs of the shorter runs lack one slab in each 32.
  EXPECT_EQ(pool_.n_superslabs, 40u);
  for (auto [base, n_slabs] : runs) Release(base, n_slabs);
}

TEST_F(Pool, TakesFromTheFullestSuperslabThatHasRoom) {
  std::vector<uintptr_t> used[3];
  const size_t n_free[3] = {12, 3, 7};
  for (int i = 0; i < 3; ++i) used[i] = SuperslabWithFree(0);
  for (int i = 0; i < 3; ++i) {
    for (size_t n = n_free[i]; n != 0; --n) {
      Release(used[i].back());
      used[i].pop_back();
    }
  }
  for (int expected : {1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0}) {
    uintptr_t slab = Acquire(1);
    EXPECT_EQ(SuperslabOf(slab), SuperslabOf(used[expected][0]));
    used[expected].push_back(slab);
  }
  EXPECT_EQ(pool_.n_superslabs, 3u);
  for (auto &slabs : used) ReleaseAll(slabs);
}

TEST_F(Pool, PassesOverAFullerSuperslabWithoutAnAlignedRun) {
  std::vector<uintptr_t> fuller = AcquireMany(32);
  std::vector<uintptr_t> emptier = AcquireMany(32);
  std::sort(fuller.begin(), fuller.end());
  std::sort(emptier.begin(), emptier.end());
  for (size_t i = 1; i < 32; i += 4) Release(fuller[i]);  // 8 free slabs, none beside another
  for (size_t i = 16; i < 32; ++i) Release(emptier[i]);   // 16 in a row
  uintptr_t run = Acquire(8);
  EXPECT_EQ(SuperslabOf(run), SuperslabOf(emptier[0]));
  EXPECT_EQ(pool_.n_superslabs, 2u);
  Release(run, 8);
  for (size_t i = 0; i < 32; ++i) {
    if (i % 4 != 1) Release(fuller[i]);
  }
  for (size_t i = 0; i < 16; ++i) Release(emptier[i]);
}

TEST_F(Pool, PrefersASlabThatStillHasItsPages) {
  std::vector<uintptr_t> slabs = AcquireMany(10);
  std::sort(slabs.begin(), slabs.end());
  uintptr_t last = slabs.back();
  Release(last);
  bool zeroed = true;
  EXPECT_EQ(Acquire(1, &zeroed), last);
  EXPECT_FALSE(zeroed);
  ReleaseAll(slabs);
}

// Decay

TEST_F(Pool, ReturnsPagesAfterTheDecayTimeAndNotBefore) {
  std::vector<uintptr_t> slabs = SuperslabWithFree(0);
  Write(slabs.back());
  Release(slabs.back());
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS - 1);
  hak_pool_tick(&pool_);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  hak_os_fake_advance_ms(1);
  hak_pool_tick(&pool_);
  EXPECT_EQ(hak_os_fake_purged_bytes(), kSlab);
  EXPECT_TRUE(IsZero(slabs.back()));
  // Once is enough.
  hak_os_fake_advance_ms(10 * HAK_POOL_PURGE_DELAY_MS);
  hak_pool_tick(&pool_);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 1u);
  slabs.pop_back();
  ReleaseAll(slabs);
}

TEST_F(Pool, DecaysOnAllocationAndOnFreeAlike) {
  std::vector<uintptr_t> early = SuperslabWithFree(1);
  std::vector<uintptr_t> other = SuperslabWithFree(0);
  std::vector<uintptr_t> another = SuperslabWithFree(4);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  size_t before = hak_os_fake_purged_bytes();
  Release(other.back());
  other.pop_back();
  EXPECT_GT(hak_os_fake_purged_bytes(), before);

  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  before = hak_os_fake_purged_bytes();
  another.push_back(Acquire(2));
  EXPECT_GT(hak_os_fake_purged_bytes(), before);
  Release(another.back(), 2);
  another.pop_back();
  ReleaseAll(early);
  ReleaseAll(other);
  ReleaseAll(another);
}

TEST_F(Pool, LetsAWhollyFreeSuperslabLeaveAfterTheDecayTime) {
  ReleaseAll(AcquireMany(32));
  EXPECT_EQ(pool_.n_superslabs, 1u);
  EXPECT_EQ(pool_.n_slabs_used, 0u);
  size_t mapped = hak_os_fake_mapped_bytes();
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_pool_tick(&pool_);
  EXPECT_EQ(pool_.n_superslabs, 0u);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), mapped - HAK_SUPERSLAB_BYTES);
}

TEST_F(Pool, LetsWhollyFreeSuperslabsWithoutPagesLeaveAtOnceButForOne) {
  std::vector<uintptr_t> clean = AcquireMany(10, 32);
  EXPECT_EQ(pool_.n_superslabs, 10u);
  for (uintptr_t superslab : clean) hak_pool_release(&pool_, superslab, 32, false);
  EXPECT_EQ(pool_.n_superslabs, 1u);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_pool_tick(&pool_);
  EXPECT_EQ(pool_.n_superslabs, 0u);
}

TEST_F(Pool, KeepsAddressSpaceForAMomentWherePagesGoBackAtOnce) {
  pool_.retain.delay_ms = 0;
  const uintptr_t slab = hak_pool_acquire(&pool_, 1, HAK_DEMAND_MANY, nullptr);
  EXPECT_EQ(pool_.n_superslabs, 2u);
  const uintptr_t other = Acquire(1);
  Write(other);
  Release(other);
  EXPECT_EQ(hak_os_fake_purged_bytes(), kSlab) << "what stands before it keeps it from nothing";
  EXPECT_EQ(pool_.n_superslabs, 2u);
  Release(slab);
}

TEST_F(Pool, LetsAnUnusedNeighbourLeaveAfterTheDecayTime) {
  const uintptr_t slab = hak_pool_acquire(&pool_, 1, HAK_DEMAND_MANY, nullptr);
  EXPECT_EQ(pool_.n_superslabs, 2u);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS - 1);
  hak_pool_tick(&pool_);
  EXPECT_EQ(pool_.n_superslabs, 2u);
  hak_os_fake_advance_ms(1);
  hak_pool_tick(&pool_);
  EXPECT_EQ(pool_.n_superslabs, 1u);
  Release(slab);
}

// A slab that is freed without pages makes its SuperSlab the youngest, so that older ones stand before it.
TEST_F(Pool, LooksAtTheLongestUnusedFirst) {
  std::vector<uintptr_t> first = AcquireMany(kAll);
  std::vector<uintptr_t> second = AcquireMany(kAll);
  Release(first[0]);
  Release(second[0]);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
  hak_pool_release(&pool_, first[1], 1, false);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
  hak_pool_tick(&pool_);
  EXPECT_EQ(hak_os_fake_purged_bytes(), kSlab) << "the second one's";
  first.erase(first.begin(), first.begin() + 2);
  second.erase(second.begin());
  ReleaseAll(first);
  ReleaseAll(second);
}

TEST_F(Pool, KeepsWhatIsUsedAgainWithinTheDecayTime) {
  std::vector<uintptr_t> slabs = AcquireMany(2);
  for (int i = 0; i < 100; ++i) {
    Write(slabs[1]);
    Release(slabs[1]);
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
    slabs[1] = Acquire(1);
    EXPECT_FALSE(IsZero(slabs[1]));
  }
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 0u);
  ReleaseAll(slabs);
}

// What is kept

TEST_F(Pool, GivesBackAtOnceWhatIsBeyondTheLimit) {
  std::vector<uintptr_t> slabs = AcquireMany(8 * 32);
  ReleaseAll(slabs);
  EXPECT_EQ(pool_.retain.unused_bytes, HAK_RETAIN_MIN_BYTES);
  EXPECT_EQ(pool_.n_superslabs * HAK_SUPERSLAB_BYTES, HAK_RETAIN_MIN_BYTES);
}

TEST_F(Pool, KeepsMoreWhereMoreIsInUse) {
  std::vector<uintptr_t> slabs = AcquireMany(16 * 32);
  hak_retain_took_pages(&pool_.retain, 10 * HAK_SUPERSLAB_BYTES << HAK_RETAIN_SHIFT, 0);
  ReleaseAll(slabs);
  EXPECT_EQ(pool_.retain.unused_bytes, 10 * HAK_SUPERSLAB_BYTES);
}

TEST_F(Pool, LearnsToKeepWhatItWouldHaveNeededAndForgetsIt) {
  std::vector<uintptr_t> slabs = AcquireMany(8 * 32);
  ReleaseAll(slabs);
  size_t early = 8 * HAK_SUPERSLAB_BYTES - HAK_RETAIN_MIN_BYTES;
  EXPECT_EQ(pool_.retain.ghost_bytes, early);
  // Whoever takes pages into use says so.
  hak_retain_took_pages(&pool_.retain, 2 * early, early / 4);
  EXPECT_EQ(pool_.retain.learned_bytes, early / 4 * HAK_RETAIN_GHOST_WEIGHT);
  hak_retain_took_pages(&pool_.retain, 2 * early, early);
  EXPECT_EQ(pool_.retain.learned_bytes, HAK_RETAIN_GHOST_WEIGHT * early) << "no more than went back early counts";
  hak_retain_lost_pages(&pool_.retain, 4 * early);

  slabs = AcquireMany(6 * 32);
  ReleaseAll(slabs);
  EXPECT_EQ(pool_.retain.unused_bytes, 6 * HAK_SUPERSLAB_BYTES);
  for (int i = 0; i < 2; ++i) {
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
    hak_pool_tick(&pool_);
  }
  EXPECT_EQ(pool_.retain.unused_bytes, 0u);
  EXPECT_EQ(pool_.retain.learned_bytes, 0u);
}

TEST_F(Pool, WhatItHasLearnedKeepsTheWholeNoLargerThanWhatWasInUseAndAnEighth) {
  std::vector<uintptr_t> slabs = AcquireMany(16 * 32);
  ReleaseAll(slabs);
  size_t early = 16 * HAK_SUPERSLAB_BYTES - HAK_RETAIN_MIN_BYTES;
  hak_retain_took_pages(&pool_.retain, 96 * HAK_SUPERSLAB_BYTES, early);
  EXPECT_EQ(pool_.retain.learned_bytes, HAK_RETAIN_GHOST_WEIGHT * early);
  hak_retain_lost_pages(&pool_.retain, 2 * HAK_SUPERSLAB_BYTES);

  slabs = AcquireMany(16 * 32);
  ReleaseAll(slabs);
  EXPECT_EQ(pool_.retain.unused_bytes, (2 + 12) * HAK_SUPERSLAB_BYTES);
  // Of what is kept in the pool and by Huge, nothing is taken for used.
  hak_retain_add_huge(&pool_.retain, 4 * HAK_SUPERSLAB_BYTES);
  EXPECT_EQ(hak_retain_used_bytes(&pool_.retain), 98 * HAK_SUPERSLAB_BYTES);
  EXPECT_EQ(hak_retain_excess(&pool_.retain), 14 * HAK_SUPERSLAB_BYTES - 98 * HAK_SUPERSLAB_BYTES / 8);
  hak_retain_add_huge(&pool_.retain, (size_t)0 - 4 * HAK_SUPERSLAB_BYTES);
  hak_pool_trim(&pool_, 0);
  EXPECT_EQ(pool_.retain.peak_bytes, 94 * HAK_SUPERSLAB_BYTES);
}

TEST_F(Pool, WhatASmallProcessHasLearnedKeepsTheWhole16MiBLarger) {
  std::vector<uintptr_t> slabs = AcquireMany(16 * 32);
  ReleaseAll(slabs);
  hak_retain_took_pages(&pool_.retain, 15 * HAK_SUPERSLAB_BYTES, 14 * HAK_SUPERSLAB_BYTES);
  slabs = AcquireMany(16 * 32);
  ReleaseAll(slabs);
  EXPECT_EQ(pool_.retain.unused_bytes, HAK_RETAIN_SMALL_SLACK_BYTES);
  hak_retain_took_pages(&pool_.retain, 10 * HAK_SUPERSLAB_BYTES, 0);
  slabs = AcquireMany(16 * 32);
  ReleaseAll(slabs);
  EXPECT_EQ(pool_.retain.unused_bytes, HAK_RETAIN_SMALL_BYTES - 25 * HAK_SUPERSLAB_BYTES);
}

TEST_F(Pool, LearnsNoMoreThanCanHaveAnEffect) {
  hak_retain_took_pages(&pool_.retain, 32 * HAK_SUPERSLAB_BYTES, 0);
  for (int i = 0; i < 100; ++i) {
    std::vector<uintptr_t> slabs = AcquireMany(16 * 32);
    ReleaseAll(slabs);
    hak_retain_took_pages(&pool_.retain, 0, 14 * HAK_SUPERSLAB_BYTES);
  }
  EXPECT_LE(pool_.retain.learned_bytes, 36 * HAK_SUPERSLAB_BYTES) << "what was in use at the most, and an eighth";
  EXPECT_GE(pool_.retain.learned_bytes, 2 * HAK_SUPERSLAB_BYTES);
  hak_retain_lost_pages(&pool_.retain, 32 * HAK_SUPERSLAB_BYTES);
}

TEST_F(Pool, LearnsNothingFromWhatWentBackLongAgo) {
  std::vector<uintptr_t> slabs = AcquireMany(8 * 32);
  ReleaseAll(slabs);
  hak_os_fake_advance_ms(2 * HAK_POOL_PURGE_DELAY_MS);
  hak_retain_took_pages(&pool_.retain, HAK_SUPERSLAB_BYTES, HAK_SUPERSLAB_BYTES);
  EXPECT_EQ(pool_.retain.learned_bytes, 0u);
}

// Trim

TEST_F(Pool, TrimReturnsAllThatIsFreeAndSaysHowMuch) {
  pool_.retain.min_bytes = 32 * HAK_SUPERSLAB_BYTES;
  std::vector<uintptr_t> slabs = AcquireMany(32 + 32 + 8);
  std::vector<uintptr_t> kept(slabs.end() - 4, slabs.end());
  slabs.resize(slabs.size() - 4);
  for (uintptr_t slab : slabs) {
    Write(slab);
    Release(slab);
  }
  EXPECT_EQ(hak_pool_trim(&pool_, 0), (32 + 32 + 4) * kSlab);
  EXPECT_EQ(pool_.n_superslabs, 1u);
  EXPECT_EQ(hak_pool_trim(&pool_, 0), 0u);
  ReleaseAll(kept);
}

TEST_F(Pool, TrimKeepsAsMuchAsItIsToldTo) {
  pool_.retain.min_bytes = 32 * HAK_SUPERSLAB_BYTES;
  std::vector<uintptr_t> slabs = AcquireMany(5 * 32);
  ReleaseAll(slabs);
  EXPECT_EQ(hak_pool_trim(&pool_, 2 * HAK_SUPERSLAB_BYTES), 3 * HAK_SUPERSLAB_BYTES);
  EXPECT_EQ(pool_.n_superslabs, 2u);
  EXPECT_EQ(hak_pool_trim(&pool_, 2 * HAK_SUPERSLAB_BYTES), 0u);
  EXPECT_EQ(hak_pool_trim(&pool_, 2 * HAK_SUPERSLAB_BYTES - 1), HAK_SUPERSLAB_BYTES);
}

TEST_F(Pool, TrimReturnsTheAddressSpaceOfAnUnusedNeighbourToo) {
  uintptr_t slab = hak_pool_acquire(&pool_, 1, HAK_DEMAND_MANY, nullptr);
  EXPECT_EQ(pool_.n_superslabs, 2u);
  hak_pool_trim(&pool_, 0);
  EXPECT_EQ(pool_.n_superslabs, 1u);
  Release(slab);
}

// A process that takes memory and gives it back, for days, must not use another part of the address space each time:
// what a region holds for single SuperSlabs stays.
TEST_F(Pool, AddressSpaceThatWasGivenBackIsUsedAgainInWhateverOrder) {
  constexpr size_t kPeak = 8;
  std::mt19937 random(1);
  std::vector<uintptr_t> runs;
  uintptr_t floor = 0;
  for (int round = 0; round < 400; ++round) {
    while (runs.size() < kPeak) runs.push_back(Acquire(kAll));
    const uintptr_t lowest = *std::min_element(runs.begin(), runs.end());
    if (round == 0) floor = lowest - kPeak * HAK_SUPERSLAB_BYTES;
    ASSERT_GE(lowest, floor) << "round " << round;
    // For long all of them, then some: where there are holes, the kernel's choice can be another.
    std::shuffle(runs.begin(), runs.end(), random);
    for (size_t n_kept = round < 200 ? 0 : random() % kPeak; runs.size() > n_kept; runs.pop_back()) {
      Release(runs.back(), kAll);
      if (random() % 2 == 0) hak_pool_trim(&pool_, 0);
    }
    hak_pool_trim(&pool_, 0);
  }
  ReleaseAll(runs, kAll);
}

// Failures

TEST_F(Pool, AnswersZeroWhenNothingCanBeMappedAndServesWhatIsFreedLater) {
  std::vector<uintptr_t> slabs = AcquireMany(32);
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  for (size_t n_slabs = 1; n_slabs <= kAll; n_slabs *= 2) EXPECT_EQ(Acquire(n_slabs), 0u);
  EXPECT_EQ(hak_pool_acquire(&pool_, 1, HAK_DEMAND_MANY, nullptr), 0u);
  EXPECT_EQ(pool_.n_slabs_used, 32u);
  EXPECT_EQ(pool_.n_superslabs, 1u);
  Release(slabs[5]);
  EXPECT_EQ(Acquire(1), slabs[5]);
  hak_os_fake_succeed();
  slabs.push_back(Acquire(1));
  EXPECT_NE(slabs.back(), 0u);
  ReleaseAll(slabs);
}

TEST_F(Pool, LosesNothingWhicheverMappingFails) {
  uintptr_t region = 0x7ea000000000;
  for (size_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    // Where no pool was before, so that the registry must map as well.
    while (hak_registry.region_offset[region >> HAK_REGION_SHIFT] != 0) region += uintptr_t{1} << HAK_REGION_SHIFT;
    Start(4096);
    pool_.last_mapped = region + (uintptr_t{1} << 31);
    hak_os_fake_fail(HAK_OS_FAKE_MAP, nth, 1);
    std::vector<uintptr_t> slabs;
    size_t n_refused = 0;
    while (slabs.size() < 70) {
      uintptr_t slab = Acquire(1);
      if (slab != 0) {
        slabs.push_back(slab);
      } else {
        ++n_refused;
      }
    }
    EXPECT_EQ(std::set<uintptr_t>(slabs.begin(), slabs.end()).size(), 70u);
    EXPECT_EQ(pool_.n_slabs_used, 70u);
    EXPECT_EQ(pool_.n_superslabs, 3u);
    EXPECT_LE(n_refused, 1u);
    ReleaseAll(slabs);
    hak_pool_trim(&pool_, 0);
    EXPECT_EQ(pool_.n_superslabs, 0u);
    // Of all that was mapped the new region alone stays.
    const size_t guard_bytes = HAK_CONFIG_HARDENED ? 2 * 4096 : 0;
    EXPECT_EQ(hak_os_fake_mapped_bytes() % (sizeof(hak_region) + guard_bytes), 0u);
    if (n_refused == 0) {
      EXPECT_GT(nth, 3u);
      break;
    }
  }
}

TEST_F(Pool, KeepsTheContentOfWhatCannotBePurgedAndSaysSo) {
  std::vector<uintptr_t> slabs = AcquireMany(2);
  Write(slabs[1]);
  Release(slabs[1]);
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, SIZE_MAX);
  EXPECT_EQ(hak_pool_trim(&pool_, 0), 0u) << "nothing was returned";
  bool zeroed = true;
  EXPECT_EQ(Acquire(1, &zeroed), slabs[1]);
  EXPECT_FALSE(zeroed);
  EXPECT_FALSE(IsZero(slabs[1]));
  ReleaseAll(slabs);
}

TEST_F(Pool, TrimsAndDecaysToAnEndWhenNothingCanBePurged) {
  std::vector<uintptr_t> slabs = AcquireMany(3 * 32);
  for (size_t i = 0; i < slabs.size(); i += 2) Release(slabs[i]);
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, SIZE_MAX);
  EXPECT_EQ(hak_pool_trim(&pool_, 0), 0u);
  pool_.retain.delay_ms = 0;
  hak_os_fake_advance_ms(10 * HAK_POOL_PURGE_DELAY_MS);
  hak_pool_tick(&pool_);
  for (size_t i = 1; i < slabs.size(); i += 2) Release(slabs[i]);
}

TEST_F(Pool, DecaysTheRestWhenOneSuperslabCannotBePurged) {
  std::vector<uintptr_t> slabs = AcquireMany(2 * 32);
  Release(slabs.front());
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, 1);
  hak_pool_tick(&pool_);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  Release(slabs.back());
  for (int i = 0; i < 3; ++i) {
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
    hak_pool_tick(&pool_);
  }
  EXPECT_EQ(hak_os_fake_purged_bytes(), 2 * kSlab) << "the other one, and, tried again, the first";
  for (size_t i = 1; i + 1 < slabs.size(); ++i) Release(slabs[i]);
}

TEST_F(Pool, ARunCountsAsAWholeWhereTheLimitAllowsForItAndElseItsPagesGoBack) {
  uintptr_t run = Acquire(4);
  hak_unpoison(reinterpret_cast<void *>(run), 4 * kSlab);
  size_t *held_bytes = &pool_.retain.limit.held_bytes;
  EXPECT_FALSE(hak_pool_count_whole(&pool_, run, 4, 0));
  EXPECT_EQ(*held_bytes, 0u);

  pool_.retain.limit.max_bytes = 4 * kSlab;
  *held_bytes = kSlab;
  EXPECT_TRUE(hak_pool_count_whole(&pool_, run, 4, kSlab));
  EXPECT_EQ(*held_bytes, 4 * kSlab);
  EXPECT_TRUE(hak_pool_count_whole(&pool_, run, 4, 4 * kSlab));
  EXPECT_EQ(*held_bytes, 4 * kSlab);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 0u);

  pool_.retain.limit.max_bytes = 4 * kSlab - 1;
  *held_bytes = kSlab;
  *reinterpret_cast<char *>(run) = 1;
  EXPECT_FALSE(hak_pool_count_whole(&pool_, run, 4, kSlab));
  EXPECT_EQ(*held_bytes, 0u);
  EXPECT_EQ(*reinterpret_cast<char *>(run), 0);

  // Locked memory, for instance.
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, 1);
  *held_bytes = kSlab;
  EXPECT_TRUE(hak_pool_count_whole(&pool_, run, 4, kSlab));
  EXPECT_EQ(*held_bytes, 4 * kSlab);
  Release(run, 4);
}

TEST_F(Pool, PurgesAWhollyFreeSuperslabThatCannotBeUnmappedAndGoesOnUsingIt) {
  std::vector<uintptr_t> slabs = AcquireMany(32);
  for (uintptr_t slab : slabs) Write(slab);
  ReleaseAll(slabs);
  hak_os_fake_fail(HAK_OS_FAKE_UNMAP, 1, SIZE_MAX);
  EXPECT_EQ(hak_pool_trim(&pool_, 0), 32 * kSlab);
  EXPECT_EQ(pool_.n_superslabs, 1u);
  bool zeroed = false;
  uintptr_t run = Acquire(32, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_TRUE(IsZero(run, 32));
  EXPECT_EQ(pool_.n_superslabs, 1u);
  Release(run, 32);
}

// Metadata

TEST_F(Pool, MetadataIsZeroedAlignedAndApart) {
  std::map<uintptr_t, size_t> blocks;
  for (size_t bytes : {1, 63, 64, 65, 4096, 3200, 65536, 65537, 300000, 8}) {
    auto *p = static_cast<unsigned char *>(hak_pool_meta_alloc(&pool_, bytes));
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(p[i], 0);
    memset(p, 0xff, bytes);
    blocks[reinterpret_cast<uintptr_t>(p)] = bytes;
  }
  uintptr_t end = 0;
  for (auto [start, bytes] : blocks) {
    EXPECT_GE(start, end);
    end = start + bytes;
  }
}

TEST_F(Pool, LeavesNothingCoveredWhenARegionCannotBeMade) {
  // Two SuperSlabs, of which one lies in each of two regions that nobody has used.
  uintptr_t border = 0x7eb000000000;
  while (hak_registry.region_offset[(border >> HAK_REGION_SHIFT) - 1] != 0 ||
         hak_registry.region_offset[border >> HAK_REGION_SHIFT] != 0) {
    border += uintptr_t{2} << HAK_REGION_SHIFT;
  }
  pool_.last_mapped = border + HAK_SUPERSLAB_BYTES;
  // After the SuperSlabs and one region.
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 3, 1);
  uintptr_t base = hak_pool_acquire(&pool_, 1, HAK_DEMAND_MANY, nullptr);
  EXPECT_NE(hak_registry.region_offset[(border >> HAK_REGION_SHIFT) - 1], 0u);
  EXPECT_EQ(hak_os_fake_failed_count(HAK_OS_FAKE_MAP), 1u);
  EXPECT_EQ(hak_test::CountCovers(), 1u) << "what was mapped instead";
  hak_pool_release(&pool_, base, 1, true);
}

TEST_F(Pool, MetadataFailsWithTheSystemAndIsServedAfterwards) {
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, 1);
  EXPECT_EQ(hak_pool_meta_alloc(&pool_, 100), nullptr);
  EXPECT_NE(hak_pool_meta_alloc(&pool_, 100), nullptr);
}

// A random program against a model: who owns which slab, and what each one must contain.

struct Scenario {
  size_t page_bytes;
  unsigned seed;
  bool failures;
};

class PoolProgram : public Pool, public ::testing::WithParamInterface<Scenario> {
 protected:
  void SetUp() override { Start(GetParam().page_bytes); }
};

TEST_P(PoolProgram, NeverOverlapsNeverLosesAndTellsTheTruthAboutZeroes) {
  std::mt19937 random(GetParam().seed);
  struct Run {
    uintptr_t base;
    size_t n_slabs;
    uint64_t pattern;
  };
  std::vector<Run> runs;
  std::set<uintptr_t> owned;  // slabs
  const size_t step = 4096;
  auto words = [&](const Run &run, auto &&f) {
    hak_unpoison(reinterpret_cast<void *>(run.base), run.n_slabs * kSlab);
    for (size_t at = 0; at < run.n_slabs * kSlab; at += step) f(reinterpret_cast<uint64_t *>(run.base + at));
  };
  for (int i = 0; i < 12000; ++i) {
    if (GetParam().failures && random() % 16 == 0) {
      auto call = static_cast<hak_os_fake_call>(HAK_OS_FAKE_MAP + random() % 3);
      hak_os_fake_fail(call, 1 + random() % 4, random() % 3);
    }
    switch (random() % 8) {
      default: {
        if (runs.size() > (i / 3000 % 2 == 0 ? 300u : 20u)) break;
        Run run = {0, size_t{1} << (random() % 8 == 0 ? random() % 6 : 0), random()};
        bool zeroed = false;
        run.base =
            hak_pool_acquire(&pool_, run.n_slabs, random() % 4 == 0 ? HAK_DEMAND_MANY : HAK_DEMAND_LITTLE, &zeroed);
        if (run.base == 0) {
          ASSERT_TRUE(GetParam().failures);
          break;
        }
        ASSERT_EQ(run.base % (run.n_slabs * kSlab), 0u);
        for (size_t slab = 0; slab < run.n_slabs; ++slab) ASSERT_TRUE(owned.insert(run.base + slab * kSlab).second);
        words(run, [&](uint64_t *word) {
          if (zeroed) {
            ASSERT_EQ(*word, 0u);
          }
          *word = run.pattern;
        });
        runs.push_back(run);
        break;
      }
      case 0:
      case 1:
      case 2:
      case 3: {
        if (runs.empty()) break;
        std::swap(runs[random() % runs.size()], runs.back());
        Run run = runs.back();
        runs.pop_back();
        words(run, [&](uint64_t *word) { ASSERT_EQ(*word, run.pattern); });
        for (size_t slab = 0; slab < run.n_slabs; ++slab) owned.erase(run.base + slab * kSlab);
        hak_pool_release(&pool_, run.base, run.n_slabs, true);
        break;
      }
      case 4:
        hak_os_fake_advance_ms(random() % 400);
        hak_pool_tick(&pool_);
        if (random() % 32 == 0) hak_pool_trim(&pool_, random() % (4 * HAK_SUPERSLAB_BYTES));
    }
    ASSERT_EQ(pool_.n_slabs_used, owned.size());
    ASSERT_GE(pool_.n_superslabs * kAll, owned.size());
  }
  for (const Run &run : runs) hak_pool_release(&pool_, run.base, run.n_slabs, true);
}

INSTANTIATE_TEST_SUITE_P(PageSizes, PoolProgram,
                         ::testing::Values(Scenario{4096, 1, false}, Scenario{16384, 2, false},
                                           Scenario{65536, 3, false}, Scenario{4096, 4, true},
                                           Scenario{65536, 5, true}));

}  // namespace

// The caches of ACE: what a thread keeps of the blocks it freed, how deep its cache is, and when it gives up.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "ace/ace.h"
#include "ace/ace_class.h"
#include "ace/test_ace.h"
#include "platform/os_fake.h"

namespace {

using hak_test::AceTest;
using hak_test::kAcePage;
using hak_test::kDecayMs;
using hak_test::kKiB;
using hak_test::kMiB;

TEST_F(AceTest, AFreedBlockIsTheNextOfItsClass) {
  for (const size_t size : {33 * kKiB, 200 * kKiB, 900 * kKiB}) {
    char *p = Malloc(size);
    Free(p);
    EXPECT_EQ(Malloc(size), p);
    Free(p);
  }
}

TEST_F(AceTest, ACachedBlockServesSmallerRequestsWithinTheWindow) {
  char *p = Malloc(400 * kKiB);
  Free(p);
  char *q = Malloc(330 * kKiB);
  EXPECT_EQ(q, p);
  Free(q);
  char *far = Malloc(100 * kKiB);
  EXPECT_NE(far, p);
  Free(far);
}

TEST_F(AceTest, ACachedBlockThatIsNotAlignedAsWantedIsPassedOver) {
  char *first = Malloc(36 * kKiB);
  char *second = Malloc(36 * kKiB);
  char *odd = reinterpret_cast<uintptr_t>(first) % (64 * kKiB) != 0 ? first : second;
  Free(odd);
  char *aligned = Malloc(36 * kKiB, 64 * kKiB);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(aligned) % (64 * kKiB), 0u);
  EXPECT_NE(aligned, odd);
  Free(aligned);
  Free(odd == first ? second : first);
}

TEST_F(AceTest, DepthGrowsWithADemandThatADeeperCacheWouldMeet) {
  const size_t size_class = hak_ace_class_of_size(40 * kKiB);
  char *blocks[4];
  for (char *&p : blocks) p = Malloc(40 * kKiB);
  for (char *p : blocks) Free(p);
  EXPECT_EQ(Limit(size_class), 1u) << "a first overflow alone says nothing";
  for (int round = 0; round < 10; ++round) {
    for (char *&p : blocks) p = Malloc(40 * kKiB);
    for (char *p : blocks) Free(p);
  }
  EXPECT_GE(Limit(size_class), 4u);
  EXPECT_EQ(Count(size_class), 4u);
  const uint32_t misses = cache_->n_misses;
  for (char *&p : blocks) p = Malloc(40 * kKiB);
  for (char *p : blocks) Free(p);
  EXPECT_EQ(cache_->n_misses, misses);
}

TEST_F(AceTest, DepthIsBounded) {
  std::vector<char *> blocks(100);
  for (int round = 0; round < 50; ++round) {
    for (char *&p : blocks) p = Malloc(40 * kKiB);
    for (char *p : blocks) Free(p);
  }
  for (size_t c = 0; c < HAK_ACE_CLASSES; ++c) {
    EXPECT_LE(Count(c), static_cast<size_t>(HAK_ACE_CACHE_DEPTH));
    EXPECT_LE(Limit(c), static_cast<size_t>(HAK_ACE_CACHE_DEPTH));
  }
}

TEST_F(AceTest, AThreadThatOnlyFreesKeepsOneMiB) {
  std::vector<char *> blocks;
  std::mt19937_64 random(3);
  for (int i = 0; i < 300; ++i) blocks.push_back(ArenaMalloc(33 * kKiB + random() % (900 * kKiB)));
  for (char *p : blocks) Free(p);
  EXPECT_LE(CachedPages() * kAcePage, kMiB);
}

TEST_F(AceTest, ABlockBeyondTheBudgetIsKeptOnceItIsMissed) {
  char *p = Malloc(1900 * kKiB);
  for (int i = 0; i < 4; ++i) {
    Free(p);
    p = Malloc(1900 * kKiB);
  }
  // More live memory allows a larger budget.
  std::vector<char *> others;
  for (int i = 0; i < 12; ++i) others.push_back(ArenaMalloc(1900 * kKiB));
  for (int i = 0; i < 4; ++i) {
    Free(p);
    p = Malloc(1900 * kKiB);
  }
  const uint32_t misses = cache_->n_misses;
  Free(p);
  EXPECT_EQ(Malloc(1900 * kKiB), p);
  EXPECT_EQ(cache_->n_misses, misses);
  Free(p);
  for (char *other : others) ArenaFree(other);
}

TEST_F(AceTest, TheBudgetFollowsTheMemoryInUseAndEveryMissIsWithinIt) {
  std::mt19937_64 random(4);
  std::vector<char *> slots(64, nullptr);
  for (int i = 0; i < 20000; ++i) {
    char *&slot = slots[random() % slots.size()];
    if (slot != nullptr) Free(slot);
    slot = Malloc(33000 + random() % 900001);
    ASSERT_LE(CachedPages(), BudgetPages());
  }
  const size_t superslabs = Superslabs();
  EXPECT_GT(BudgetPages() * kAcePage, 4 * kMiB);
  EXPECT_LE(BudgetPages() * kAcePage, superslabs * 2 * kMiB / 2);
  for (char *p : slots) Free(p);
}

TEST_F(AceTest, NineteenOfTwentyRequestsOfAChurningProgramAreMetByTheCache) {
  std::mt19937_64 random(5);
  std::vector<char *> slots(64, nullptr);
  auto churn = [&](int n) {
    for (int i = 0; i < n; ++i) {
      char *&slot = slots[random() % slots.size()];
      if (slot != nullptr) Free(slot);
      slot = Malloc(33000 + random() % 900001);
    }
  };
  churn(10000);
  const uint32_t misses = cache_->n_misses;
  churn(10000);
  EXPECT_LT(cache_->n_misses - misses, 500u);
  for (char *p : slots) Free(p);
}

TEST_F(AceTest, WhatLiesUnusedInACacheDecays) {
  char *blocks[8];
  for (int round = 0; round < 20; ++round) {
    for (char *&p : blocks) p = Malloc(40 * kKiB);
    for (char *p : blocks) Free(p);
  }
  EXPECT_GE(CachedPages(), 8 * 10u);
  for (int i = 0; i < 8; ++i) {
    hak_os_fake_advance_ms(kDecayMs);
    hak_ace_tick(&ace_, cache_.get());
  }
  EXPECT_EQ(CachedPages(), 0u);
  EXPECT_EQ(cache_->nonempty, 0u);
}

TEST_F(AceTest, AFlushedCacheIsAsNewAndHoldsNothing) {
  char *p = Malloc(100 * kKiB);
  char *q = Malloc(300 * kKiB);
  Free(p);
  Free(q);
  hak_ace_cache_flush(&ace_, cache_.get());
  const hak_ace_cache zero = {};
  EXPECT_EQ(std::memcmp(cache_.get(), &zero, sizeof zero), 0);
  hak_ace_cache_flush(&ace_, cache_.get());
  for (const hak_ace_arena &arena : ace_.arenas) EXPECT_EQ(arena.n_threads, 0u);
  hak_ace_trim(&ace_, 0);
  EXPECT_EQ(Superslabs(), 0u);
}

TEST_F(AceTest, TheStacksOfAFlushedCacheServeTheNext) {
  char *first = Malloc(100 * kKiB);
  Free(first);
  const hak_ace_stacks *stacks = cache_->stacks;
  EXPECT_EQ(reinterpret_cast<uintptr_t>(stacks) % HAK_ACE_STACK_BYTES, 0u);
  hak_ace_cache_flush(&ace_, cache_.get());
  char *second = Malloc(100 * kKiB);
  EXPECT_EQ(cache_->stacks, stacks);
  Free(second);
}

TEST_F(AceTest, AThreadForWhoseStacksThereIsNoMemoryGoesWithoutACache) {
  char *p = ArenaMalloc(100 * kKiB);
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  while (hak_pool_meta_alloc(&pool_, 64) != nullptr) continue;
  Free(p);
  EXPECT_EQ(Malloc(100 * kKiB), p) << "the arena has it";
  EXPECT_EQ(cache_->stacks, nullptr);
  hak_os_fake_succeed();
  Free(p);
  EXPECT_EQ(Count(hak_ace_class_of_size(100 * kKiB)), 1u);
}

TEST_F(AceTest, ThreadsAreSpreadOverTheArenasAndReuseThem) {
  std::vector<std::unique_ptr<hak_ace_cache>> caches;
  for (int i = 0; i < HAK_ACE_ARENAS; ++i) {
    caches.push_back(std::make_unique<hak_ace_cache>());
    std::memset(caches.back().get(), 0, sizeof(hak_ace_cache));
    void *p = hak_ace_malloc(&ace_, caches.back().get(), 100 * kKiB, 16, nullptr);
    hak_ace_free(&ace_, caches.back().get(), p);
  }
  for (const hak_ace_arena &arena : ace_.arenas) EXPECT_EQ(arena.n_threads, 1u);
  hak_ace_cache_flush(&ace_, caches[3].get());
  void *p = hak_ace_malloc(&ace_, caches[3].get(), 100 * kKiB, 16, nullptr);
  EXPECT_EQ(ace_.arenas[3].n_threads, 1u);
  hak_ace_free(&ace_, caches[3].get(), p);
  for (auto &cache : caches) hak_ace_cache_flush(&ace_, cache.get());
}

}  // namespace

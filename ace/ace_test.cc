#include "ace/ace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ace/ace_class.h"
#include "ace/ace_inline.h"
#include "platform/os_fake.h"
#include "platform/report.h"
#include "superslab/registry.h"

namespace {

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
    return static_cast<size_t>(cache_->end[size_class] - cache_->slots[size_class]);
  }
  size_t CachedPages() const { return static_cast<size_t>(cache_->budget_pages - cache_->room_pages); }

  hak_pool pool_;
  hak_ace ace_;
  std::unique_ptr<hak_ace_cache> cache_;
};

using AceDeathTest = AceTest;

// Each word of the block tells the block and the place, so that any overlap shows.
void Fill(char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size; i += 512) {
    const uint64_t word = tag * 0x9e3779b97f4a7c15u + i;
    std::memcpy(p + i, &word, 8);
  }
  p[size - 1] = static_cast<char>(tag);
}

::testing::AssertionResult IsFilled(const char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size - 1; i += 512) {
    uint64_t word;
    std::memcpy(&word, p + i, 8);
    if (word != tag * 0x9e3779b97f4a7c15u + i) return ::testing::AssertionFailure() << "at offset " << i;
  }
  if (p[size - 1] != static_cast<char>(tag)) return ::testing::AssertionFailure() << "at the last byte";
  return ::testing::AssertionSuccess();
}

TEST(AceClassTest, EveryRequestGetsTheSmallestClassThatHoldsIt) {
  for (size_t n_pages = 1; n_pages <= HAK_ACE_SUPERSLAB_PAGES; ++n_pages) {
    const size_t size_class = hak_ace_class_of_size(n_pages * kAcePage);
    ASSERT_LT(size_class, static_cast<size_t>(HAK_ACE_CLASSES));
    ASSERT_GE(hak_ace_class_pages(size_class), n_pages);
    if (size_class != 0) {
      ASSERT_LT(hak_ace_class_pages(size_class - 1), n_pages);
    }
    ASSERT_EQ(hak_ace_class_of_size(n_pages * kAcePage - kAcePage + 1), size_class);
  }
}

TEST(AceClassTest, AnExtentServesTheLargestClassThatItHolds) {
  for (size_t n_pages = HAK_ACE_MIN_PAGES; n_pages <= HAK_ACE_SUPERSLAB_PAGES; ++n_pages) {
    const size_t size_class = hak_ace_class_of_extent(n_pages);
    ASSERT_LE(hak_ace_class_pages(size_class), n_pages);
    if (size_class + 1 < HAK_ACE_CLASSES) {
      ASSERT_GT(hak_ace_class_pages(size_class + 1), n_pages);
    }
  }
}

TEST(AceClassTest, TheTablesSayWhatTheFunctionsSay) {
  for (size_t n = HAK_ACE_MIN_PAGES - 1; n < HAK_ACE_SUPERSLAB_PAGES; ++n) {
    ASSERT_EQ(hak_ace_class_tables.of_pages[n - (HAK_ACE_MIN_PAGES - 1)], hak_ace_class_of_pages(n));
  }
  for (size_t c = 0; c < HAK_ACE_CLASSES; ++c) {
    for (size_t other = 0; other < 64; ++other) {
      const bool in_window = other >= c && other <= c + HAK_ACE_MAX_CLASSES_ABOVE;
      ASSERT_EQ(hak_ace_class_tables.window[c] >> other & 1, in_window ? 1u : 0u) << c << " " << other;
    }
  }
}

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

TEST_F(AceTest, EverySizeAndAlignmentIsServedAlignedAndWritableToItsLastByte) {
  for (const size_t size : {size_t{0}, size_t{1}, 32 * kKiB, 32 * kKiB + 1, 100 * kKiB, kMiB, 2 * kMiB - 1, 2 * kMiB}) {
    for (size_t alignment = 1; alignment <= HAK_ACE_MAX_ALIGNMENT; alignment *= 2) {
      char *p = Malloc(size, alignment);
      ASSERT_NE(p, nullptr) << size << " " << alignment;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % std::max(alignment, kAcePage), 0u);
      EXPECT_EQ(hak_entry_kind(hak_registry_find(p)), static_cast<uint32_t>(HAK_KIND_ACE));
      const size_t usable = hak_ace_usable_size(p);
      EXPECT_GE(usable, size);
      p[0] = 1;
      p[usable - 1] = 1;
      Free(p);
    }
  }
}

TEST_F(AceTest, WhatIsTooLargeOrTooAlignedIsRefused) {
  EXPECT_EQ(Malloc(2 * kMiB + 1), nullptr);
  EXPECT_EQ(Malloc(SIZE_MAX), nullptr);
  EXPECT_EQ(Malloc(PTRDIFF_MAX), nullptr);
  EXPECT_EQ(Malloc(100 * kKiB, 2 * kMiB), nullptr);
  EXPECT_EQ(Superslabs(), 0u);
}

TEST_F(AceTest, BlocksOfARandomProgramDoNotOverlapAndKeepTheirContent) {
  struct Block {
    size_t size;
    uint64_t tag;
  };
  std::mt19937_64 random(1);
  std::map<char *, Block> live;
  uint64_t tag = 0;
  for (int i = 0; i < 20000; ++i) {
    if (live.size() < 60 || random() % 2 == 0) {
      const size_t size = 1 + random() % (random() % 8 == 0 ? 2 * kMiB : 300 * kKiB);
      const size_t alignment = random() % 8 == 0 ? size_t{1} << random() % 21 : 16;
      char *p = random() % 8 == 0 ? ArenaMalloc(size, alignment) : Malloc(size, alignment);
      ASSERT_NE(p, nullptr);
      auto next = live.lower_bound(p);
      if (next != live.end()) {
        ASSERT_LE(p + hak_ace_usable_size(p), next->first);
      }
      if (next != live.begin()) {
        --next;
        ASSERT_LE(next->first + hak_ace_usable_size(next->first), p);
      }
      Fill(p, size, ++tag);
      live[p] = {size, tag};
    } else {
      auto block = live.begin();
      std::advance(block, random() % live.size());
      char *p = block->first;
      ASSERT_TRUE(IsFilled(p, block->second.size, block->second.tag));
      const size_t size = 1 + random() % (400 * kKiB);
      const char first = p[0];
      if (random() % 3 == 0 && hak_ace_resize(&ace_, p, size)) {
        ASSERT_EQ(p[0], first);
        ASSERT_GE(hak_ace_usable_size(p), size);
        Fill(p, size, block->second.tag);
        block->second.size = size;
        continue;
      }
      live.erase(block);
      random() % 8 == 0 ? ArenaFree(p) : Free(p);
    }
    if (i % 1000 == 0) hak_ace_trim(&ace_, 0);
    if (i % 100 == 0) hak_os_fake_advance_ms(random() % 400);
  }
  for (const auto &[p, block] : live) {
    EXPECT_TRUE(IsFilled(p, block.size, block.tag));
    Free(p);
  }
}

TEST_F(AceTest, MemoryThatIsReportedZeroedIsZero) {
  std::mt19937_64 random(2);
  std::vector<std::pair<char *, size_t>> live;
  int n_zeroed = 0;
  for (int i = 0; i < 5000; ++i) {
    if (live.size() < 30) {
      const size_t size = 1 + random() % (500 * kKiB);
      bool zeroed = false;
      char *p = random() % 2 == 0 ? ArenaMalloc(size, 16, &zeroed) : Malloc(size, 16, &zeroed);
      const size_t usable = hak_ace_usable_size(p);
      if (zeroed) {
        ++n_zeroed;
        ASSERT_EQ(std::count(p, p + usable, 0), static_cast<ptrdiff_t>(usable));
      }
      std::memset(p, 0xaa, usable);
      live.emplace_back(p, size);
    } else {
      const size_t k = random() % live.size();
      Free(live[k].first);
      live[k] = live.back();
      live.pop_back();
    }
    if (i % 500 == 0) hak_ace_trim(&ace_, 0);
  }
  EXPECT_GT(n_zeroed, 100);
  for (const auto &block : live) Free(block.first);
}

TEST_F(AceTest, ARequestFromTheCacheIsNotReportedZeroed) {
  char *p = Malloc(100 * kKiB);
  std::memset(p, 1, 100 * kKiB);
  Free(p);
  bool zeroed = true;
  char *again = Malloc(100 * kKiB, 16, &zeroed);
  EXPECT_EQ(again, p);
  EXPECT_FALSE(zeroed);
  Free(again);
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

// The cache

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
    ASSERT_LE(CachedPages(), static_cast<size_t>(cache_->budget_pages));
  }
  const size_t superslabs = Superslabs();
  EXPECT_GT(cache_->budget_pages * kAcePage, 4 * kMiB);
  EXPECT_LE(cache_->budget_pages * kAcePage, superslabs * 2 * kMiB / 2);
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

// Running out

TEST_F(AceTest, ARequestThatTheSystemRefusesIsNullAndIsServedAgainLater) {
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  EXPECT_EQ(Malloc(100 * kKiB), nullptr);
  EXPECT_EQ(ArenaMalloc(100 * kKiB), nullptr);
  hak_os_fake_succeed();
  char *p = Malloc(100 * kKiB);
  EXPECT_NE(p, nullptr);
  Free(p);
}

TEST_F(AceTest, WhenTheSystemRefusesTheThreadsOwnCacheMakesRoom) {
  std::vector<char *> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(Malloc(230 * kKiB));
  for (char *p : blocks) Free(p);
  ASSERT_GT(CachedPages(), 0u);
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  char *p = Malloc(2 * kMiB);
  EXPECT_NE(p, nullptr);
  hak_os_fake_succeed();
  Free(p);
}

TEST_F(AceTest, WhenTheSystemRefusesOtherArenasServe) {
  hak_ace_cache other = {};
  void *first = hak_ace_malloc(&ace_, &other, 100 * kKiB, 16, nullptr);
  char *mine = Malloc(kMiB);
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  char *p = Malloc(kMiB + 900 * kKiB);
  EXPECT_EQ(p, nullptr);
  p = Malloc(kMiB);
  char *q = Malloc(kMiB);
  EXPECT_NE(p, nullptr);
  (void)q;
  hak_os_fake_succeed();
  hak_ace_free(&ace_, &other, first);
  hak_ace_cache_flush(&ace_, &other);
  Free(mine);
  Free(p);
  if (q != nullptr) Free(q);
}

// One short life: what failed is skipped, all else is checked and freed.
void RunOnce(hak_ace *ace, hak_ace_cache *cache, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::pair<char *, size_t>> live;
  for (int i = 0; i < 120; ++i) {
    const size_t size = 1 + random() % (2 * kMiB);
    const size_t alignment = size_t{1} << random() % 21;
    char *p = static_cast<char *>(hak_ace_malloc(ace, cache, size, alignment, nullptr));
    if (p != nullptr) {
      Fill(p, std::min<size_t>(size, 8192), i);
      live.emplace_back(p, i);
      if (random() % 2 == 0) hak_ace_resize(ace, p, 8192 + random() % (2 * kMiB));
    }
    if (live.size() > 10) {
      const size_t k = random() % live.size();
      hak_ace_free(ace, random() % 2 == 0 ? cache : nullptr, live[k].first);
      live[k] = live.back();
      live.pop_back();
    }
    if (i % 30 == 0) hak_ace_trim(ace, 0);
    hak_os_fake_advance_ms(100);
  }
  for (const auto &block : live) hak_ace_free(ace, cache, block.first);
}

TEST_F(AceTest, NothingIsLostWhenAnyOneSystemCallFailsOrAllFromThereOn) {
  RunOnce(&ace_, cache_.get(), 7);
  const size_t n_calls = hak_os_fake_count(HAK_OS_FAKE_ANY);
  ASSERT_GT(n_calls, 20u);
  for (const size_t count : {size_t{1}, SIZE_MAX}) {
    for (size_t nth = 1; nth <= n_calls; ++nth) {
      Restart(4 * kKiB, false);
      hak_os_fake_fail(HAK_OS_FAKE_ANY, nth, count);
      RunOnce(&ace_, cache_.get(), 7);
      hak_os_fake_succeed();
      hak_ace_cache_flush(&ace_, cache_.get());
      hak_ace_trim(&ace_, 0);
      ASSERT_EQ(pool_.n_slabs_used, 0u) << "call " << nth;
      char *p = Malloc(kMiB);
      ASSERT_NE(p, nullptr) << "no full service again after call " << nth;
      Free(p);
    }
  }
}

// Threads

TEST_F(AceTest, ThreadsThatHandBlocksAroundKeepThemIntact) {
  constexpr int kThreads = 4;
  constexpr int kSlots = 64;
  struct Slot {
    std::mutex lock;
    char *p = nullptr;
    size_t size = 0;
    uint64_t tag = 0;
  };
  std::vector<Slot> slots(kSlots);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      auto cache = std::make_unique<hak_ace_cache>();
      std::memset(cache.get(), 0, sizeof *cache);
      std::mt19937_64 random(t);
      for (int i = 0; i < 3000; ++i) {
        const size_t size = 33000 + random() % 400000;
        const uint64_t tag = random();
        char *p = static_cast<char *>(hak_ace_malloc(&ace_, cache.get(), size, 16, nullptr));
        ASSERT_NE(p, nullptr);
        Fill(p, size, tag);
        Slot &slot = slots[random() % kSlots];
        char *old;
        {
          std::lock_guard<std::mutex> lock(slot.lock);
          old = slot.p;
          if (old != nullptr) {
            ASSERT_TRUE(IsFilled(old, slot.size, slot.tag));
          }
          slot.p = p;
          slot.size = size;
          slot.tag = tag;
        }
        if (old != nullptr) {
          if (random() % 4 == 0) hak_ace_resize(&ace_, old, 33000 + random() % 400000);
          hak_ace_free(&ace_, cache.get(), old);
        }
        if (i % 500 == 0) hak_ace_trim(&ace_, kMiB);
        if (i % 100 == 0) hak_os_fake_advance_ms(50);
        if (i % 1000 == 999) hak_ace_cache_flush(&ace_, cache.get());
      }
      hak_ace_cache_flush(&ace_, cache.get());
    });
  }
  for (std::thread &thread : threads) thread.join();
  for (Slot &slot : slots) {
    if (slot.p != nullptr) Free(slot.p);
  }
}

TEST_F(AceTest, BlocksThatOnlyOtherThreadsFreeAreUsedAgain) {
  // One thread's cache only frees, another's only allocates.
  auto frees = std::make_unique<hak_ace_cache>();
  std::memset(frees.get(), 0, sizeof *frees);
  std::vector<char *> window(20, nullptr);
  size_t most = 0;
  for (int i = 0; i < 5000; ++i) {
    char *&slot = window[i % window.size()];
    if (slot != nullptr) hak_ace_free(&ace_, frees.get(), slot);
    slot = Malloc(100 * kKiB);
    most = std::max(most, Superslabs());
  }
  EXPECT_LE(most, 4u);
  for (char *p : window) Free(p);
  hak_ace_cache_flush(&ace_, frees.get());
}

TEST_F(AceTest, TheLocksMayBeTakenAndGivenBackAroundAFork) {
  char *p = Malloc(100 * kKiB);
  hak_ace_lock(&ace_);
  hak_ace_unlock(&ace_);
  Free(p);
  EXPECT_EQ(Malloc(100 * kKiB), p);
  Free(p);
}

// Misuse

std::string Message(const char *function, const void *p, const char *reason) {
  char address[32];
  std::snprintf(address, sizeof address, "0x%lx", reinterpret_cast<unsigned long>(p));
  return std::string("\\[HAKMEM\\] FATAL: ") + function + "\\(" + address + "\\): " + reason + "\n";
}

TEST_F(AceDeathTest, ADoubleFreeIsFoundWhileTheBlockIsCached) {
  char *p = Malloc(100 * kKiB);
  Free(p);
  EXPECT_DEATH(Free(p), Message("free", p, HAK_MISUSE_DOUBLE_FREE));
  EXPECT_DEATH(ArenaFree(p), Message("free", p, HAK_MISUSE_DOUBLE_FREE));
}

TEST_F(AceDeathTest, ADoubleFreeIsFoundInAnotherThreadsCache) {
  char *p = Malloc(100 * kKiB);
  hak_ace_cache other = {};
  hak_ace_free(&ace_, &other, p);
  EXPECT_DEATH(Free(p), Message("free", p, HAK_MISUSE_DOUBLE_FREE));
  hak_ace_cache_flush(&ace_, &other);
}

TEST_F(AceDeathTest, ADoubleFreeIsFoundAfterTheBlockWentToItsArena) {
  char *keep = Malloc(100 * kKiB);
  char *p = Malloc(100 * kKiB);
  char *q = Malloc(100 * kKiB);
  ArenaFree(p);
  EXPECT_DEATH(Free(p), Message("free", p, HAK_MISUSE_DOUBLE_FREE));
  // Coalesced, it is the middle of a free run.
  ArenaFree(q);
  EXPECT_DEATH(Free(q), Message("free", q, HAK_MISUSE_DOUBLE_FREE));
  Free(keep);
}

TEST_F(AceDeathTest, AnInteriorPointerIsNotTheStartOfABlock) {
  char *p = Malloc(100 * kKiB);
  for (const size_t offset : {size_t{1}, size_t{16}, kAcePage, 64 * kKiB, 99 * kKiB}) {
    EXPECT_EQ(hak_ace_usable_size(p + offset), 0u);
    EXPECT_DEATH(Free(p + offset), Message("free", p + offset, HAK_MISUSE_NOT_START));
  }
  Free(p);
}

TEST_F(AceDeathTest, ReallocOfAFreedBlockIsNamedAsSuch) {
  char *p = Malloc(100 * kKiB);
  Free(p);
  EXPECT_EQ(hak_ace_usable_size(p), 0u);
  EXPECT_DEATH(hak_ace_misuse(&ace_, "realloc", p), Message("realloc", p, HAK_MISUSE_DOUBLE_FREE));
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

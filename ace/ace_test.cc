// ACE as its callers see it: classes, sizes and alignments, memory that runs out, threads, misuse.
#include "ace/ace.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ace/ace_class.h"
#include "ace/test_ace.h"
#include "platform/os_fake.h"
#include "platform/report.h"
#include "superslab/registry.h"

namespace {

using hak_test::AceTest;
using hak_test::Fill;
using hak_test::IsFilled;
using hak_test::kAcePage;
using hak_test::kKiB;
using hak_test::kMiB;

using AceDeathTest = AceTest;

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
  EXPECT_NE(p, nullptr) << "there is room in the own arena";
  char *q = Malloc(kMiB);
  EXPECT_NE(q, nullptr) << "and in the other";
  hak_os_fake_succeed();
  hak_ace_free(&ace_, &other, first);
  hak_ace_cache_flush(&ace_, &other);
  Free(mine);
  Free(p);
  Free(q);
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
  for (hak_ace_arena &arena : ace_.arenas) EXPECT_EQ(pthread_mutex_trylock(&arena.lock.mutex), EBUSY);
  hak_ace_unlock(&ace_);
  for (hak_ace_arena &arena : ace_.arenas) {
    EXPECT_EQ(pthread_mutex_trylock(&arena.lock.mutex), 0);
    pthread_mutex_unlock(&arena.lock.mutex);
  }
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

}  // namespace

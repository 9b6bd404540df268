// HAKMEM_LIMIT, options that change at run time, and what a trim says that it gave back.
#include <errno.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "platform/memory.h"
#include "router/hakmem.h"
#include "router/rollup.h"

namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kLimit = 64 * kMiB;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kRssIsOurs = false;  // the sanitizer's own memory grows along
#else
constexpr bool kRssIsOurs = true;
#endif

size_t Rss() { return hak_test::RollupBytes("Rss:"); }

size_t Held() {
  struct hak_stats stats;
  hak_stats_read(&stats);
  return stats.held_bytes;
}

// A block of which every byte is written; NULL with ENOMEM.
void *Malloc(size_t size) {
  errno = 0;
  void *p = hak_malloc(size);
  if (p == nullptr) {
    EXPECT_EQ(errno, ENOMEM);
  } else {
    memset(p, 0x5a, size);
  }
  return p;
}

// Chains blocks through their first word, so that nothing else is allocated meanwhile.
struct Block {
  Block *next;
};

void Chain(void *p, Block **all) {
  auto *block = static_cast<Block *>(p);
  block->next = *all;
  *all = block;
}

// As many blocks as there is memory for, or `bytes` allow; their number.
size_t Fill(size_t size, Block **all, size_t bytes = SIZE_MAX) {
  size_t n = 0;
  while (n < bytes / size) {
    void *p = Malloc(size);
    if (p == nullptr) break;
    Chain(p, all);
    ++n;
  }
  return n;
}

void FreeAll(Block **all) {
  while (*all != nullptr) {
    Block *next = (*all)->next;
    hak_free(*all);
    *all = next;
  }
}

class Limit : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(hak_set("HAKMEM_LIMIT", "0"), 0);
    hak_trim(0);
    // What the tests before have left in use, and the region's first pages.
    base_ = Held();
    ASSERT_LE(base_, kMiB);
    rss_ = Rss();
  }
  void TearDown() override { hak_set("HAKMEM_LIMIT", "0"); }

  static void SetLimit(const char *value) { ASSERT_EQ(hak_set("HAKMEM_LIMIT", value), 0) << value; }

  // Nothing is held beyond the limit, in our own count and in the kernel's: metadata may come on top.
  void ExpectWithin(size_t limit) const {
    EXPECT_LE(Held(), limit);
    if (kRssIsOurs) {
      EXPECT_LE(Rss(), rss_ + limit + 4 * kMiB);
    }
  }

  size_t base_, rss_;
};

class LimitOfSize : public Limit, public ::testing::WithParamInterface<size_t> {};

TEST_P(LimitOfSize, IsNotExceededAndMostOfItCanBeHadAgainAndAgain) {
  SetLimit("64m");
  const size_t size = GetParam();
  Block *all = nullptr;
  size_t first = Fill(size, &all);
  ExpectWithin(kLimit);
  EXPECT_GE(first * size, kLimit * 3 / 4 - 2 * size);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Malloc(size), nullptr);
  errno = 0;
  EXPECT_EQ(hak_calloc(1, kLimit), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  // A block becomes smaller without memory for the move.
  Block *rest = all->next;
  void *smaller = hak_realloc(all, 1);
  EXPECT_NE(smaller, nullptr);
  hak_free(smaller);
  all = rest;
  void *aligned = nullptr;
  EXPECT_EQ(hak_posix_memalign(&aligned, 64, kLimit), ENOMEM);
  FreeAll(&all);
  size_t second = Fill(size, &all);
  ExpectWithin(kLimit);
  EXPECT_GE(second, first - first / 10);
  FreeAll(&all);
  // For other sizes as well.
  for (size_t other : {size_t{16}, 5000 * size_t{1}, 100 * kKiB, 60 * kMiB}) {
    void *p = Malloc(other);
    EXPECT_NE(p, nullptr) << other;
    hak_free(p);
  }
  hak_trim(0);
  EXPECT_LE(Held(), base_);
}

INSTANTIATE_TEST_SUITE_P(Sizes, LimitOfSize,
                         ::testing::Values(16, 700, 5000, 20 * kKiB, 33 * kKiB, 700 * kKiB, 1900 * kKiB, 5 * kMiB));

TEST_F(Limit, HoldsForSizesInTurn) {
  SetLimit("64m");
  const size_t sizes[] = {16, 500, 1200, 9000, 30 * kKiB, 50 * kKiB, 300 * kKiB, 3 * kMiB};
  std::vector<std::pair<void *, size_t>> blocks(8000);
  std::mt19937 random(1);
  size_t live = 0, n_refused = 0, max_live = 0;
  for (int i = 0; i < 30000; ++i) {
    auto &[p, size] = blocks[random() % blocks.size()];
    if (p != nullptr) {
      EXPECT_EQ(*static_cast<char *>(p), 0x5a);
      hak_free(p);
      live -= size;
    }
    size = sizes[random() % std::size(sizes)];
    p = Malloc(size);
    n_refused += p == nullptr;
    if (p != nullptr) live += size;
    max_live = std::max(max_live, live);
    if (i % 1000 == 0) ExpectWithin(kLimit);
  }
  EXPECT_GT(n_refused, 0u);
  EXPECT_GE(max_live, kLimit / 2);
  for (auto &[p, size] : blocks) hak_free(p);
}

// For what a block that grows gets beyond its need nothing is given back, and nobody is told.
TEST_F(Limit, IsNoConcernOfABlockThatGrowsIntoOneAtHand) {
  SetLimit("64m");
  Block *all = nullptr;
  void *p = Malloc(1000);
  Fill(1100, &all, 3300);
  void *next = Malloc(1100);
  Fill(1100, &all, 3300);
  for (size_t size : {32 * kKiB, 4 * kKiB, size_t{1400}, size_t{1250}}) Fill(size, &all);
  ASSERT_EQ(hak_malloc(1250), nullptr);
  void *unused = Malloc(16);  // a trim would return its page
  const size_t held = Held();
  hak_free(unused);
  hak_free(next);
  errno = 7;
  p = hak_realloc(p, 1100);
  EXPECT_NE(p, nullptr);
  EXPECT_EQ(errno, 7);
  EXPECT_EQ(Held(), held);
  FreeAll(&all);
  hak_free(p);
}

TEST_F(Limit, AllowsForWhatReallocMovesWithoutACopy) {
  SetLimit("64m");
  auto *p = static_cast<char *>(Malloc(40 * kMiB));
  ASSERT_NE(p, nullptr);
  // In the cache, and in the way.
  hak_free(Malloc(15 * kMiB));
  // Where the next mapping is a neighbour the block cannot grow in place.
  p = static_cast<char *>(hak_realloc(p, 60 * kMiB));
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(p[40 * kMiB - 1], 0x5a);
  ExpectWithin(kLimit);
  errno = 0;
  EXPECT_EQ(hak_realloc(p, 65 * kMiB), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_EQ(p[40 * kMiB - 1], 0x5a);
  EXPECT_EQ(Malloc(8 * kMiB), nullptr);
  p = static_cast<char *>(hak_realloc(p, 10 * kMiB));
  void *other = Malloc(50 * kMiB);
  EXPECT_NE(other, nullptr) << "what became smaller is still counted";
  hak_free(other);
  hak_free(p);
  hak_trim(0);
  EXPECT_LE(Held(), base_);
}

TEST_F(Limit, AllowsForGrowthInPlaceInAce) {
  SetLimit("64m");
  auto *p = static_cast<char *>(Malloc(100 * kKiB));
  Block *all = nullptr;
  (void)Fill(kMiB, &all, 62 * kMiB);
  p = static_cast<char *>(hak_realloc(p, 600 * kKiB));
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(p[100 * kKiB - 1], 0x5a);
  (void)Fill(10 * kKiB, &all);
  errno = 0;
  EXPECT_EQ(hak_realloc(p, 1500 * kKiB), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  ExpectWithin(kLimit);
  FreeAll(&all);
  hak_free(p);
  hak_trim(0);
  EXPECT_LE(Held(), base_);
}

// There is nothing left for a block of the tier that it should be of.
TEST_F(Limit, WhatReallocMakesSmallerGoesBackWhereItStays) {
  for (size_t size : {20 * kMiB, kMiB}) {
    SetLimit("64m");
    errno = 0;
    auto *p = static_cast<char *>(Malloc(size));
    Block *all = nullptr;
    (void)Fill(20 * kKiB, &all);
    const size_t held = Held();
    p = static_cast<char *>(hak_realloc(p, 30 * kKiB));
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(p[30 * kKiB - 1], 0x5a);
    EXPECT_EQ(errno, ENOMEM) << "of the last block that could not be had";
    hak_trim(0);
    EXPECT_LE(Held(), held - size / 2);
    ExpectWithin(kLimit);
    FreeAll(&all);
    hak_free(p);
    hak_trim(0);
    EXPECT_LE(Held(), base_);
  }
}

TEST_F(Limit, CountsHugeBlocksAsAWhole) {
  SetLimit("64m");
  errno = 0;
  EXPECT_EQ(hak_calloc(1, 65 * kMiB), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  void *untouched = hak_calloc(1, 60 * kMiB);
  EXPECT_NE(untouched, nullptr);
  EXPECT_EQ(Malloc(8 * kMiB), nullptr);
  hak_free(untouched);
}

TEST_F(Limit, WhatHugeKeepsDoesNotStandInTheWayOfSmallerBlocks) {
  SetLimit("64m");
  for (size_t size : {size_t{100}, size_t{5000}, 40 * kKiB, 1000 * kKiB, 2 * kMiB + 4 * kKiB}) {
    SCOPED_TRACE(size);
    for (int i = 0; i < 30; ++i) {
      void *p = hak_malloc(62 * kMiB);
      EXPECT_NE(p, nullptr);
      hak_free(p);
    }
    Block *all = nullptr;
    EXPECT_GE(Fill(size, &all) * size, 54 * kMiB);
    ExpectWithin(kLimit);
    size_t n_huge = 0;
    for (const Block *block = all; block != nullptr; block = block->next) n_huge += hak_owner(block)[0] == 'h';
    if (size < 32 * kKiB) {
      EXPECT_LE(n_huge, 2u) << "when nothing else was left";
    }
    FreeAll(&all);
    hak_trim(0);
  }
}

TEST_F(Limit, WhatASleepingThreadHasFreedIsUsed) {
  SetLimit("64m");
  std::atomic<int> step{0};
  std::thread sleeper([&] {
    Block *all = nullptr;
    (void)Fill(300, &all, 25 * kMiB);
    (void)Fill(9000, &all, 25 * kMiB);
    FreeAll(&all);
    step = 1;
    while (step != 2) std::this_thread::yield();
  });
  while (step != 1) std::this_thread::yield();
  Block *all = nullptr;
  EXPECT_GE(Fill(1000, &all, 45 * kMiB) * 1000, 45 * kMiB - 1000);
  ExpectWithin(kLimit);
  FreeAll(&all);
  step = 2;
  sleeper.join();
}

// Free blocks in pages that stay, and slabs that woke later of which all that is free was purged.
TEST_F(Limit, BlocksBehindPurgedSlabsAreHandedOut) {
  SetLimit("64m");
  Block *all = nullptr;
  const size_t n = Fill(64, &all, 16 * kMiB);
  std::vector<void *> blocks;
  blocks.reserve(n);
  for (; all != nullptr; all = all->next) blocks.push_back(all);
  std::sort(blocks.begin(), blocks.end());
  size_t n_free = 0;
  Block *left = nullptr;
  for (size_t i = 0; i < n / 2; ++i) {
    if (i % 2 == 0) {
      hak_free(blocks[i]);
      ++n_free;
    } else {
      Chain(blocks[i], &left);
    }
  }
  for (size_t i = n / 2; i < n; ++i) {
    const size_t in_slab = reinterpret_cast<uintptr_t>(blocks[i]) % (256 * kKiB);
    if (in_slab >= 64 * kKiB && in_slab < 144 * kKiB) {
      hak_free(blocks[i]);
    } else {
      Chain(blocks[i], &left);
    }
  }
  hak_trim(0);
  for (size_t size : {kMiB, 64 * kKiB, 36 * kKiB, size_t{1000}}) (void)Fill(size, &left);
  EXPECT_GE(Fill(64, &left, n_free * 64), n_free - 2 * 1023) << "those of two slabs are current, or in a sleeping one";
  ExpectWithin(kLimit);
  FreeAll(&left);
}

TEST_F(Limit, HoldsForThreadsTogether) {
  SetLimit("64m");
  constexpr unsigned kThreads = 4;
  std::atomic<size_t> n_refused{0};
  // All have what they could get before one frees it: they need more than there is.
  pthread_barrier_t all_full;
  pthread_barrier_init(&all_full, nullptr, kThreads);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < 4; ++round) {
        Block *all = nullptr;
        size_t bytes = 0;
        while (bytes < 24 * kMiB) {
          size_t size = size_t{16} << random() % 17;
          auto *block = static_cast<Block *>(Malloc(size));
          bytes += size;
          if (block == nullptr) {
            ++n_refused;
            continue;
          }
          block->next = all;
          all = block;
        }
        EXPECT_LE(Held(), kLimit);
        pthread_barrier_wait(&all_full);
        FreeAll(&all);
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  pthread_barrier_destroy(&all_full);
  ExpectWithin(kLimit);
  EXPECT_GT(n_refused, 0u);
  Block *all = nullptr;
  EXPECT_GE(Fill(kMiB, &all), 55u);
  FreeAll(&all);
  hak_trim(0);
  EXPECT_LE(Held(), base_ + kMiB);
}

TEST_F(Limit, SoftOneRefusesNothingAndKeepsNothingUnusedBeyond) {
  SetLimit("64m:soft");
  for (size_t size : {size_t{100}, 9000 * size_t{1}, 200 * kKiB, 4 * kMiB}) {
    Block *all = nullptr;
    EXPECT_EQ(Fill(size, &all, 2 * kLimit), 2 * kLimit / size) << size;
    // Unused memory beyond the limit goes back as it is freed.
    while (all != nullptr) {
      Block *next = all->next;
      hak_free(all);
      all = next;
    }
    EXPECT_LE(Held(), kLimit) << size;
    ExpectWithin(kLimit);
  }
}

TEST_F(Limit, ALowerOneIsKeptFromThenOn) {
  Block *all = nullptr;
  EXPECT_EQ(Fill(kMiB, &all, 32 * kMiB), 32u);
  SetLimit("16m");
  EXPECT_EQ(Malloc(kMiB), nullptr);
  EXPECT_EQ(Malloc(4 * kMiB), nullptr);
  auto *smaller = static_cast<Block *>(hak_realloc(all, 100 * kKiB));
  EXPECT_NE(smaller, nullptr) << "less is no request for memory";
  all = smaller;
  FreeAll(&all);
  EXPECT_GE(Fill(kMiB, &all), 12u);
  ExpectWithin(16 * kMiB);
  SetLimit("64m");
  EXPECT_GE(Fill(kMiB, &all), 40u);
  FreeAll(&all);
}

// Options

TEST(Options, TakeEveryFormOfALimit) {
  const long long memory = static_cast<long long>(hak_memory_bytes(""));
  const std::pair<const char *, long long> cases[] = {
      {"1048576", 1 << 20},
      {"512m", 512 << 20},
      {"512M:soft", 512 << 20},
      {"2g", 2LL << 30},
      {"1t:hard", 1LL << 40},
      {"2048k", 2 << 20},
      {"80%", memory / 100 * 80},
      {"100%:soft", memory / 100 * 100},
      {"0", 0},
  };
  for (const auto &[text, bytes] : cases) {
    EXPECT_EQ(hak_set("HAKMEM_LIMIT", text), 0) << text;
    EXPECT_EQ(hak_get("HAKMEM_LIMIT"), bytes) << text;
  }
}

TEST(Options, ThatAreRefusedChangeNothing) {
  ASSERT_EQ(hak_set("HAKMEM_LIMIT", "2g"), 0);
  for (const char *text : {"", "x", "512mb", "-1", "1.5g", "0%", "101%", "80%m", "1048575", "1k", ":soft", "2g:",
                           "2g:Soft", "2g:softer", " 2g", "2g ", "99999999999999999999", "300t", "9999999999g"}) {
    EXPECT_EQ(hak_set("HAKMEM_LIMIT", text), EINVAL) << text;
    EXPECT_EQ(hak_get("HAKMEM_LIMIT"), 2LL << 30) << text;
  }
  ASSERT_EQ(hak_set("HAKMEM_LIMIT", "0"), 0);
  for (const char *text : {"", "3600001", "-1", "1s"}) EXPECT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", text), EINVAL);
  EXPECT_EQ(hak_get("HAKMEM_PURGE_DELAY_MS"), 1000);
  EXPECT_EQ(hak_set("HAKMEM_FOREIGN_FREE", "other"), EINVAL);
  for (const char *name : {"", "HAKMEM", "PURGE_DELAY_MS", "hakmem_limit", "HAKMEM_LIMITS"}) {
    EXPECT_EQ(hak_set(name, "1"), EINVAL) << name;
    EXPECT_EQ(hak_get(name), -1) << name;
  }
}

TEST(Options, OfTheStartStay) {
  for (const char *name : {"HAKMEM_TINY_USE_SUPERSLAB", "HAKMEM_ACE_ENABLED", "HAKMEM_TINY_MEM_DIET",
                           "HAKMEM_TINY_REFILL_COUNT_HOT", "HAKMEM_ALLOW_MALLOC_FALLBACK"}) {
    const long long before = hak_get(name);
    EXPECT_GE(before, 0) << name;
    errno = 7;
    EXPECT_EQ(hak_set(name, "1"), EPERM) << name;
    EXPECT_EQ(hak_set(name, "banana"), EINVAL) << name;
    EXPECT_EQ(errno, 7);
    EXPECT_EQ(hak_get(name), before) << name;
  }
}

TEST(Options, APurgeDelayOfZeroGivesMemoryBackAsItIsFreed) {
  ASSERT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", "0"), 0);
  EXPECT_EQ(hak_get("HAKMEM_PURGE_DELAY_MS"), 0);
  Block *all = nullptr;
  (void)Fill(200 * kKiB, &all, 2 * kMiB);
  FreeAll(&all);
  void *p = hak_malloc(3 * kMiB);
  hak_free(p);
  struct hak_stats stats;
  hak_stats_read(&stats);
  EXPECT_EQ(stats.huge_cached_bytes, 0u);
  ASSERT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", "1000"), 0);
  (void)hak_trim(0);  // so that nothing but what follows is unused: 4 MiB are kept
  p = hak_malloc(3 * kMiB);
  hak_free(p);
  hak_stats_read(&stats);
  EXPECT_EQ(stats.huge_cached_bytes, 3 * kMiB);
}

TEST(Options, CanBeSetByManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 2000; ++i) {
        hak_set("HAKMEM_PURGE_DELAY_MS", (i + t) % 2 == 0 ? "5" : "1000");
        hak_set("HAKMEM_LIMIT", (i + t) % 2 == 0 ? "1g:soft" : "2g");
        hak_set("HAKMEM_BACKGROUND_PURGE", "0");
        hak_free(memset(hak_malloc(50 * kKiB), 1, 1));
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(hak_set("HAKMEM_LIMIT", "0"), 0);
  EXPECT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", "1000"), 0);
  EXPECT_EQ(hak_get("HAKMEM_LIMIT"), 0);
  EXPECT_EQ(hak_get("HAKMEM_PURGE_DELAY_MS"), 1000);
}

// Trim

class Trim : public ::testing::TestWithParam<size_t> {};

// Every other block stays, so that there are pages with live blocks and without, and nothing of `bytes` is guessed.
TEST_P(Trim, SaysHowMuchRssShrinks) {
  if (!kRssIsOurs) GTEST_SKIP() << "a sanitizer's memory comes and goes with ours";
  const size_t size = GetParam();
  std::vector<void *> blocks(64 * kMiB / size);
  (void)hak_trim(0);
  for (void *&p : blocks) p = Malloc(size);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i * 16 / blocks.size() % 2 == 0 || i % 64 != 0) hak_free(blocks[i]);
  }
  size_t before = Rss();
  size_t returned = hak_trim(0);
  size_t after = Rss();
  // The kernel's own list of smaps lines and the like.
  EXPECT_NEAR(static_cast<double>(returned), static_cast<double>(before) - static_cast<double>(after), 256.0 * kKiB);
  EXPECT_EQ(hak_trim(0), 0u);
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i * 16 / blocks.size() % 2 != 0 && i % 64 == 0) hak_free(blocks[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Trim, ::testing::Values(100, 1000, 5000, 20 * kKiB, 100 * kKiB, 700 * kKiB, 3 * kMiB));

TEST(Trims, CountNoPageThatWasNotTouched) {
  (void)hak_trim(0);
  void *p = hak_malloc(3 * kMiB + 512 * kKiB);  // as a freed block less than is kept
  memset(p, 1, kMiB);
  hak_free(p);
  size_t returned = hak_trim(0);
  // A huge page may have backed a little more.
  EXPECT_GE(returned, kMiB);
  EXPECT_LE(returned, 2 * kMiB + 256 * kKiB);
}

}  // namespace

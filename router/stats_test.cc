// What hak_stats_read says.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <random>
#include <thread>
#include <vector>

#include "router/hakmem.h"
#include "router/test_router.h"

namespace {

using hak_test::kKiB;
using hak_test::kMiB;
using hak_test::kSizes;
using hak_test::TierOf;

struct hak_stats Stats() {
  struct hak_stats stats;
  hak_stats_read(&stats);
  EXPECT_LE(stats.ace_free_bytes, stats.ace_bytes);
  EXPECT_LE(stats.ace_bytes, stats.slab_bytes);
  EXPECT_LE(stats.slab_bytes, stats.superslab_bytes);
  EXPECT_EQ(stats.superslab_bytes % (2 * kMiB), 0u);
  return stats;
}

TEST(RouterStats, EveryBlockOfTheSlabTiersIsInSlabsInUse) {
  for (size_t size : {size_t{700}, 20 * kKiB, 500 * kKiB}) {
    hak_trim(0);
    const struct hak_stats before = Stats();
    const size_t total = 32 * kMiB;
    std::vector<void *> blocks;
    for (size_t bytes = 0; bytes < total; bytes += size) blocks.push_back(hak_malloc(size));
    const struct hak_stats full = Stats();
    // What was free in slabs in use before may have served a part.
    EXPECT_GE(full.slab_bytes - full.ace_free_bytes, before.slab_bytes - before.ace_free_bytes + total - 4 * kMiB)
        << size;
    EXPECT_LE(full.slab_bytes - full.ace_free_bytes, before.slab_bytes - before.ace_free_bytes + total * 5 / 4) << size;
    if (strcmp(TierOf(size), "ace") == 0) {
      EXPECT_GE(full.ace_bytes, before.ace_bytes + total - 4 * kMiB);
    } else {
      EXPECT_EQ(full.ace_bytes, before.ace_bytes);
    }
    EXPECT_EQ(full.n_huge, before.n_huge);
    EXPECT_EQ(full.huge_bytes, before.huge_bytes);
    for (void *p : blocks) hak_free(p);
    hak_trim(0);
    const struct hak_stats after = Stats();
    EXPECT_LE(after.slab_bytes - after.ace_free_bytes, before.slab_bytes - before.ace_free_bytes + 4 * kMiB) << size;
    EXPECT_LE(after.superslab_bytes, before.superslab_bytes + 4 * kMiB) << size;
  }
}

TEST(RouterStats, HugeBlocksAreCountedAndAfterFreeInTheCacheUntilATrim) {
  hak_trim(0);
  const struct hak_stats before = Stats();
  EXPECT_EQ(before.huge_cached_bytes, 0u);
  void *a = hak_malloc(3 * kMiB);
  void *b = hak_malloc(5 * kMiB);
  struct hak_stats now = Stats();
  EXPECT_EQ(now.n_huge, before.n_huge + 2);
  EXPECT_EQ(now.huge_bytes, before.huge_bytes + 8 * kMiB);
  b = hak_realloc(b, 9 * kMiB);
  EXPECT_EQ(Stats().huge_bytes, before.huge_bytes + 12 * kMiB);
  hak_free(a);
  now = Stats();
  EXPECT_EQ(now.n_huge, before.n_huge + 1);
  EXPECT_EQ(now.huge_bytes, before.huge_bytes + 9 * kMiB);
  EXPECT_EQ(now.huge_cached_bytes, 3 * kMiB);
  hak_free(b);
  hak_trim(0);
  now = Stats();
  EXPECT_EQ(now.huge_bytes, before.huge_bytes);
  EXPECT_EQ(now.huge_cached_bytes, 0u);
}

TEST(RouterStats, NoNumberContradictsAnotherWhileThreadsAllocate) {
  std::atomic<bool> stop{false};
  std::atomic<unsigned> n_rounds{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      // Whole SuperSlabs come and go.
      std::vector<void *> blocks(20);
      while (!stop) {
        for (void *&p : blocks) p = hak_malloc(random() % 8 == 0 ? kSizes[random() % std::size(kSizes)] : 1900 * kKiB);
        for (void *p : blocks) hak_free(p);
        hak_trim(0);
        ++n_rounds;
      }
    });
  }
  while (n_rounds < 300) (void)Stats();
  stop = true;
  for (std::thread &thread : threads) thread.join();
}

}  // namespace

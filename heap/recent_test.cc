// Recent blocks: what a thread has at hand of Mid, in whichever slabs it lies.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/compiler.h"
#include "heap/heap.h"
#include "heap/test_heap.h"
#include "platform/os_fake.h"
#include "superslab/pool.h"
#include "superslab/registry.h"

namespace {

using hak_test::ClassOf;
using hak_test::kMidKind;
using hak_test::SlabOf;
using hak_test::TakeAtHand;
using hak_test::Thread;

constexpr uint32_t kSmallKind = HAK_KIND_MID_FIRST;  // 227 blocks of 1152 bytes to a run

class Recent : public hak_test::HeapTest {
 protected:
  void SetUp() override {
    HeapTest::SetUp();
    if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "the hardened library has none but those of a refill";
  }

  // The blocks of a full slab of `kind`. Another one is current, and the thread has none of its blocks at hand.
  std::vector<void *> Asleep(Thread *thread, uint32_t kind) {
    std::vector<void *> blocks = thread->MallocSlab(kind);
    Refill(thread, kind);
    EXPECT_NE(SlabOf(of_current_.back()), SlabOf(blocks[0]));
    return blocks;
  }

  // Takes all that is at hand of `kind`, and what one refill brings. The number of the latter.
  size_t Refill(Thread *thread, uint32_t kind) {
    while (void *p = TakeAtHand(&thread->cache, kind)) of_current_.push_back(p);
    size_t n_before = of_current_.size();
    of_current_.push_back(thread->Malloc(kind));
    while (void *p = TakeAtHand(&thread->cache, kind)) of_current_.push_back(p);
    return of_current_.size() - n_before;
  }

  void FreeCurrent(Thread *thread) {
    thread->FreeAll(of_current_);
    of_current_.clear();
  }

  static size_t Max(const Thread &thread, uint32_t kind) {
    return thread.cache.at_hand.recent_max[kind - HAK_KIND_MID_FIRST];
  }

  static size_t Count(const Thread &thread, uint32_t kind) {
    size_t n = 0;
    for (uintptr_t p = thread.cache.at_hand.recent[kind - HAK_KIND_MID_FIRST]; !hak_list_is_empty(p);) {
      p = hak_link_get(p);
      ++n;
    }
    return n;
  }

  // Frees the first of `blocks`, of slabs that are not current, until there is no room for one, which went to its slab
  // then. How many became recent.
  static size_t Fill(Thread *thread, uint32_t kind, const std::vector<void *> &blocks) {
    size_t n_before = Count(*thread, kind);
    for (size_t i = 0; i < blocks.size(); ++i) {
      uint32_t n_used = hak_slab_used(SlabOf(blocks[i]));
      thread->FreeAsRecent(blocks[i]);
      if (hak_slab_used(SlabOf(blocks[i])) == n_used) continue;
      EXPECT_EQ(Count(*thread, kind), n_before + i);
      return i;
    }
    ADD_FAILURE() << "room for all " << blocks.size();
    return blocks.size();
  }

  static std::vector<void *> From(const std::vector<void *> &blocks, size_t first) {
    return {blocks.begin() + static_cast<ptrdiff_t>(first), blocks.end()};
  }

  std::vector<void *> of_current_;
};

TEST_F(Recent, AreTakenAgainTheNewestFirst) {
  for (uint32_t kind : {kSmallKind, kSmallKind + 8, kMidKind}) {
    SCOPED_TRACE(kind);
    Thread thread(&heaps_);
    std::vector<void *> blocks = Asleep(&thread, kind);
    for (size_t i = 0; i < 3; ++i) thread.FreeAsRecent(blocks[i]);
    for (size_t i = 3; i-- > 0;) EXPECT_EQ(thread.Malloc(kind), blocks[i]);
    EXPECT_EQ(TakeAtHand(&thread.cache, kind), nullptr);
    thread.FreeAll(blocks);
    FreeCurrent(&thread);
  }
}

TEST_F(Recent, AreAllThatIsAtHandOfMidAndNothingOfTiny) {
  Thread thread(&heaps_);
  void *p = thread.Malloc(kMidKind);
  void *q = thread.Malloc(kMidKind);
  hak_cache_miss miss;
  EXPECT_FALSE(hak_cache_push(&thread.cache, q, &miss)) << "though it lies in the current slab";
  EXPECT_TRUE(hak_cache_push_recent(&thread.cache, q, miss));
  EXPECT_FALSE(hak_cache_push(&thread.cache, p, &miss));
  EXPECT_TRUE(hak_cache_push_recent(&thread.cache, p, miss));
  EXPECT_EQ(thread.Malloc(kMidKind), p);
  EXPECT_EQ(thread.Malloc(kMidKind), q);
  thread.FreeAll({p, q});

  std::vector<void *> tiny = thread.MallocSlab(HAK_KIND_TINY_LAST);
  tiny.push_back(thread.Malloc(HAK_KIND_TINY_LAST));
  EXPECT_FALSE(hak_cache_push(&thread.cache, tiny[0], &miss));
  EXPECT_FALSE(hak_cache_push_recent(&thread.cache, tiny[0], miss));
  thread.FreeAll(tiny);
}

TEST_F(Recent, AreTakenWithoutABranchAsWithOne) {
  Thread thread(&heaps_);
  hak_cache *cache = &thread.cache;
  const auto no_kind_of_tiny = size_t{HAK_KIND_TINY_LAST} + 1000;
  std::vector<void *> all;
  for (uint32_t kind : {uint32_t{HAK_KIND_TINY_FIRST}, uint32_t{HAK_KIND_TINY_LAST}, kSmallKind, kMidKind,
                        uint32_t{HAK_KIND_MID_LAST}}) {
    SCOPED_TRACE(kind);
    const bool is_mid = kind >= HAK_KIND_MID_FIRST;
    auto pop_either = [&] {
      return hak_cache_pop_either(cache, is_mid ? no_kind_of_tiny : kind, is_mid ? kind : kMidKind);
    };
    EXPECT_EQ(pop_either(), nullptr) << "there is none yet";
    void *p = thread.Malloc(kind);
    const hak_at_hand before = cache->at_hand;
    void *expected = TakeAtHand(cache, kind);
    ASSERT_NE(expected, nullptr);
    const hak_at_hand after = cache->at_hand;
    cache->at_hand = before;
    EXPECT_EQ(pop_either(), expected);
    EXPECT_EQ(memcmp(&cache->at_hand, &after, sizeof after), 0);
    all.insert(all.end(), {p, expected});
  }
  thread.FreeAll(all);
}

TEST_F(Recent, AreUsedBlocksForTheirSlabAndNoMoreThanAFew) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  hak_slab *slab = SlabOf(blocks[0]);
  size_t n_brought = Refill(&thread, kMidKind);  // which makes room when it is handed out
  size_t n = Fill(&thread, kMidKind, blocks);
  EXPECT_EQ(n, HAK_RECENT_MIN + n_brought);
  EXPECT_EQ(hak_slab_used(slab), blocks.size() - 1);
  EXPECT_EQ(thread.Malloc(kMidKind), blocks[n - 1]);
  thread.Free(blocks[n - 1]);
  thread.FreeAll(From(blocks, n + 1));
  FreeCurrent(&thread);
}

TEST_F(Recent, BecomeMoreWhereThereWasNoRoomForAllThatWereWantedAgain) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kSmallKind, 16 * ClassOf(kSmallKind).n_blocks);
  hak_heap_trim(&thread.cache);
  for (size_t max : {HAK_RECENT_MIN, 2 * HAK_RECENT_MIN, 4 * HAK_RECENT_MIN, 8 * HAK_RECENT_MIN, HAK_RECENT_MAX}) {
    size_t n_brought = Refill(&thread, kSmallKind);
    EXPECT_EQ(Max(thread, kSmallKind), max);
    size_t n = Fill(&thread, kSmallKind, blocks);
    EXPECT_EQ(n, max + n_brought);
    blocks = From(blocks, n + 1);
  }
  Refill(&thread, kSmallKind);
  Refill(&thread, kSmallKind);
  EXPECT_EQ(Max(thread, kSmallKind), size_t{HAK_RECENT_MAX}) << "without need they stay as many";
  thread.FreeAll(blocks);
  FreeCurrent(&thread);
}

TEST_F(Recent, OfAllKindsTogetherAreBounded) {
  Thread thread(&heaps_);
  hak_at_hand *at_hand = &thread.cache.at_hand;
  size_t bytes = 0;
  for (uint32_t kind = HAK_KIND_MID_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
    for (int round = 0; round < 5; ++round) {
      Refill(&thread, kind);
      at_hand->recent_full[kind - HAK_KIND_MID_FIRST] = true;
    }
    bytes += (Max(thread, kind) - HAK_RECENT_MIN) * std::max<size_t>(ClassOf(kind).block_bytes, 4096);
  }
  EXPECT_EQ(bytes, at_hand->recent_bytes);
  EXPECT_LE(bytes, HAK_RECENT_BYTES);
  EXPECT_GT(bytes, HAK_RECENT_BYTES / 2);
  hak_heap_trim(&thread.cache);
  EXPECT_EQ(at_hand->recent_bytes, 0u);
  FreeCurrent(&thread);
}

TEST_F(Recent, AreNotMoreThanAtFirstOnADiet) {
  Start(4096, HAK_REFILL_COUNT_DEFAULT, true);
  Thread thread(&heaps_);
  for (int round = 0; round < 3; ++round) {
    Refill(&thread, kMidKind);
    thread.cache.at_hand.recent_full[kMidKind - HAK_KIND_MID_FIRST] = true;
  }
  EXPECT_EQ(Max(thread, kMidKind), size_t{HAK_RECENT_MIN});
  FreeCurrent(&thread);
}

TEST_F(Recent, AreTheHeapsOwn) {
  Thread thread(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  void *p = blocks[0];
  void *of_other = other.Malloc(kMidKind);
  hak_cache_miss miss;
  ASSERT_FALSE(hak_cache_push(&other.cache, p, &miss));
  EXPECT_FALSE(hak_cache_push_recent(&other.cache, p, miss)) << "it is the first thread's";
  ASSERT_FALSE(hak_cache_push(&thread.cache, p, &miss));
  hak_cache_miss unaligned = miss;
  unaligned.distance |= 8;
  EXPECT_FALSE(hak_cache_push_recent(&thread.cache, p, unaligned)) << "no block lies there";
  EXPECT_TRUE(hak_cache_push_recent(&thread.cache, p, miss));
  EXPECT_FALSE(hak_cache_push_recent(&thread.cache, p, miss)) << "it was freed just before";
  EXPECT_EQ(thread.Malloc(kMidKind), p);
  thread.FreeAll(blocks);
  FreeCurrent(&thread);
  other.Free(of_other);
}

// Each way gives back to its slab the last block in use, so that the slab is empty.
TEST_F(Recent, ReturnToTheirSlabsWithATickAndATrim) {
  void (*const ways[])(Thread *) = {
      [](Thread *thread) {
        hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
        hak_heap_tick(&thread->cache);
      },
      [](Thread *thread) { hak_heap_trim(&thread->cache); },
  };
  for (auto way : ways) {
    Thread thread(&heaps_);
    std::vector<void *> blocks = Asleep(&thread, kMidKind);
    thread.FreeAsRecent(blocks[0]);
    thread.FreeAll(From(blocks, 1));
    FreeCurrent(&thread);
    EXPECT_EQ(Count(thread, kMidKind), 1u);
    way(&thread);
    EXPECT_EQ(Count(thread, kMidKind), 0u);
    hak_heap_set_trim(&heaps_, nullptr);
    EXPECT_EQ(hak_registry_find(blocks[0]), 0u) << "the slab is the pool's";
  }
}

TEST_F(Recent, AreNoneAfterThatUntilTheKindIsAskedForAgain) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  hak_slab *slab = SlabOf(blocks[0]);
  thread.FreeAsRecent(blocks[0]);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
  hak_heap_tick(&thread.cache);
  thread.FreeAsRecent(blocks[1]);
  EXPECT_EQ(hak_slab_used(slab), blocks.size() - 2);
  Refill(&thread, kMidKind);
  ASSERT_NE(thread.cache.heap->bin[kMidKind].current, slab);
  thread.FreeAsRecent(blocks[2]);
  EXPECT_EQ(thread.Malloc(kMidKind), blocks[2]);
  thread.FreeAll(From(blocks, 2));
  FreeCurrent(&thread);
}

TEST_F(Recent, StayWithTheHeapWhenTheThreadEndsAndGoToTheNext) {
  std::vector<void *> blocks;
  {
    Thread thread(&heaps_);
    blocks = Asleep(&thread, kMidKind);
    thread.FreeAsRecent(blocks[0]);
    thread.FreeAsRecent(blocks[1]);
  }
  Thread next(&heaps_);
  EXPECT_EQ(next.Malloc(kMidKind), blocks[1]);
  next.FreeAsRecent(blocks[1]);
  EXPECT_EQ(Count(next, kMidKind), 2u);
  next.FreeAll(From(blocks, 2));
  FreeCurrent(&next);
}

// The first that go back wake their slab, which the public heap gets, and the next are for the public heap to count.
TEST_F(Recent, OfAHeapThatNobodyAdoptsGoToTheirSlabs) {
  constexpr uint32_t kFewKind = HAK_KIND_MID_FIRST + 16;  // of which a slab has 56
  std::vector<void *> blocks;
  size_t n;
  {
    Thread thread(&heaps_);
    blocks = Asleep(&thread, kFewKind);
    n = Fill(&thread, kFewKind, blocks) + 1;
    ASSERT_GT(n, blocks.size() / 8 + 2);
  }
  hak_slab *slab = SlabOf(blocks[0]);
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(hak_test::RemoteOf(blocks[0])->owner, heaps_.public_heap);
  EXPECT_EQ(slab->state, HAK_SLAB_AWAKE);
  EXPECT_EQ(hak_slab_used(slab), blocks.size() - n);
  Thread thread(&heaps_);
  thread.FreeAll(From(blocks, n));
  FreeCurrent(&thread);
}

// Or else whoever adopts the heap would give blocks to slabs that others own.
TEST_F(Recent, OfAnOrphanGoToTheirSlabsBeforeMailWakesThese) {
  std::vector<void *> blocks;
  Thread other(&heaps_);
  {
    Thread thread(&heaps_);
    blocks = Asleep(&thread, kSmallKind);
    for (size_t i = 0; i < 2; ++i) thread.FreeAsRecent(blocks[i]);
  }
  const size_t n_freed = 2 + blocks.size() / 8;
  for (size_t i = 2; i < n_freed; ++i) other.Free(blocks[i]);
  hak_heap_flush(&other.cache);
  void *of_other = other.Malloc(kSmallKind);  // wants a slab, for which it collects the orphan's mail
  EXPECT_EQ(SlabOf(of_other), SlabOf(blocks[0]));
  Thread next(&heaps_);
  EXPECT_EQ(Count(next, kSmallKind), 0u);
  other.Free(of_other);
  other.FreeAll(From(blocks, n_freed));
  FreeCurrent(&next);
}

using RecentDeathTest = Recent;

TEST_F(RecentDeathTest, ADoubleFreeOfTheNewestIsFound) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  thread.FreeAsRecent(blocks[0]);
  EXPECT_DEATH(thread.FreeAsRecent(blocks[0]), "double free");
  size_t n = Fill(&thread, kMidKind, From(blocks, 1)) + 1;
  EXPECT_DEATH(thread.FreeAsRecent(blocks[n]), "double free") << "of one that went to its slab";
  EXPECT_DEATH(thread.FreeAsRecent(blocks[n - 1]), "double free") << "of a recent one, when no other fits";
  thread.FreeAll(From(blocks, n + 1));
  FreeCurrent(&thread);
}

// The recent blocks that its free sends back go to the same slab.
TEST_F(RecentDeathTest, ADoubleFreeOfTheBlockThatMakesASlabSparseIsFound) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kSmallKind);
  std::vector<void *> others = thread.MallocSlab(kSmallKind);
  Refill(&thread, kSmallKind);
  thread.FreeAsRecent(blocks[0]);
  size_t n = Fill(&thread, kSmallKind, others) + 1;
  hak_slab *slab = SlabOf(blocks[0]);
  size_t i = 1;
  while (Count(thread, kSmallKind) != 0) thread.FreeAsRecent(blocks[i++]);
  EXPECT_EQ(slab->state, HAK_SLAB_SPARSE);
  EXPECT_EQ(hak_slab_used(slab), blocks.size() - i);
  EXPECT_DEATH(thread.FreeAsRecent(blocks[i - 1]), "double free");
  thread.FreeAsRecent(blocks[i]);
  EXPECT_EQ(Count(thread, kSmallKind), 0u) << "until the kind is asked for again";
  thread.FreeAll(From(blocks, i + 1));
  thread.FreeAll(From(others, n));
  FreeCurrent(&thread);
}

}  // namespace

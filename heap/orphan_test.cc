// Threads that end: their heaps are adopted, or dissolved when others need the memory. A test plays several threads by
// turns.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <vector>

#include "base/compiler.h"
#include "heap/heap.h"
#include "heap/test_heap.h"
#include "platform/os_fake.h"
#include "superslab/pool.h"

namespace {

using hak_test::ClassOf;
using hak_test::kBytes;
using hak_test::kDrawnOrder;
using hak_test::kKind;
using hak_test::kMidKind;
using hak_test::kPageBytes;
using hak_test::kRunBytes;
using hak_test::OwnerOf;
using hak_test::RemoteOf;
using hak_test::SlabOf;
using hak_test::Thread;

using Heap = hak_test::HeapTest;

TEST_F(Heap, ASuccessorAdoptsTheHeapAndFreesItsBlocksAsItsOwn) {
  auto predecessor = std::make_unique<Thread>(&heaps_);
  std::vector<void *> full = predecessor->MallocSlab(kKind);
  std::vector<void *> current = predecessor->MallocMany(kKind, 1);
  memset(full[7], 0x5a, kBytes);
  predecessor.reset();

  Thread successor(&heaps_);
  EXPECT_EQ(heaps_.n_heaps, 2u) << "the public one and the inherited one";
  EXPECT_EQ(*static_cast<unsigned char *>(full[7]), 0x5a);
  EXPECT_EQ(OwnerOf(full[0]), successor.cache.seat->owner_id);
  successor.FreeAll(full);
  EXPECT_EQ(RemoteOf(full[0])->word, SlabOf(full[0])->base) << "nothing was published";
  successor.FreeAll(current);
}

TEST_F(Heap, ATickDissolvesAFewOrphansAndTheNextOnesTheOthers) {
  std::vector<std::unique_ptr<Thread>> threads;
  for (int i = 0; i < 20; ++i) threads.push_back(std::make_unique<Thread>(&heaps_));
  std::vector<void *> live;
  for (auto &thread : threads) live.push_back(thread->Malloc(kKind));
  threads.clear();
  hak_os_fake_advance_ms(hak_retain_delay_ms(&pool_.retain));
  EXPECT_TRUE(hak_heap_set_tick(&heaps_, nullptr)) << "there was too much for one";
  EXPECT_NE(heaps_.oldest_orphan, nullptr);
  for (int i = 0; i < 3; ++i) {
    hak_os_fake_advance_ms(HAK_DECAY_REST_MS);
    hak_heap_set_tick(&heaps_, nullptr);
  }
  EXPECT_EQ(heaps_.oldest_orphan, nullptr);
  Thread other(&heaps_);
  other.FreeAll(live);
}

TEST_F(Heap, OrphansAreKeptAsFarAsUnusedMemoryIs) {
  constexpr int kThreads = 60;
  constexpr size_t kOrphanBytes = 3 * 16 * 1024;  // the first strips of three kinds
  std::vector<std::unique_ptr<Thread>> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.push_back(std::make_unique<Thread>(&heaps_));
    Thread &thread = *threads.back();
    for (uint32_t kind : {kKind, kKind + 1, kKind + 2}) {
      std::vector<void *> blocks;
      while (blocks.empty() || hak_slab_dirty_bytes(SlabOf(blocks[0])) < kOrphanBytes / 3) {
        blocks.push_back(thread.Malloc(kind));
      }
      thread.FreeAll(blocks);
    }
  }
  auto count = [&] {
    int n = 0;
    for (const hak_heap *heap = heaps_.newest_orphan; heap != nullptr; heap = heap->older) ++n;
    return n;
  };
  pool_.retain.min_bytes = 10 * kOrphanBytes;
  for (int i = 0; i < 10; ++i) threads.pop_back();
  EXPECT_EQ(count(), 10);
  EXPECT_EQ(pool_.retain.unused_bytes, 10 * kOrphanBytes);
  // Those that have just come may be adopted at once.
  while (threads.size() > kThreads / 2) threads.pop_back();
  EXPECT_EQ(count(), kThreads / 2);
  hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS);
  while (threads.size() > 1) threads.pop_back();
  hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS);
  for (int i = 0; i < 30; ++i) {
    threads.pop_back();
    threads.push_back(std::make_unique<Thread>(&heaps_));
  }
  threads.clear();
  EXPECT_LE(count(), 12);
  EXPECT_LE(RunsUsed(), 3u * 12);
  // A successor uses it.
  const size_t n_unused = pool_.retain.unused_bytes;
  Thread successor(&heaps_);
  EXPECT_EQ(pool_.retain.unused_bytes, n_unused - kOrphanBytes);
}

TEST_F(Heap, AnEndedThreadLeavesRoomThatAnyThreadUses) {
  Thread other(&heaps_);
  for (uint32_t kind : {kKind, kMidKind}) {
    size_t n_used = pool_.n_slabs_used;
    auto ended = std::make_unique<Thread>(&heaps_);
    void *live = ended->Malloc(kind);
    hak_slab *slab = SlabOf(live);
    ended.reset();
    hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS);

    std::vector<void *> blocks = other.MallocMany(kind, ClassOf(kind).n_blocks - 1);
    EXPECT_EQ(pool_.n_slabs_used, n_used + hak_kind_run_slabs(slab->kind));
    blocks.push_back(live);
    EXPECT_EQ(std::set<void *>(blocks.begin(), blocks.end()).size(), ClassOf(kind).n_blocks);
    for (void *p : blocks) {
      EXPECT_EQ(SlabOf(p), slab);
      EXPECT_EQ(OwnerOf(p), other.cache.seat->owner_id);
    }
    other.FreeAll(blocks);
  }
}

TEST_F(Heap, ASuccessorGoesOnWhereItsPredecessorStopped) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << kDrawnOrder;
  auto predecessor = std::make_unique<Thread>(&heaps_);
  std::vector<void *> blocks = predecessor->MallocMany(kKind, 5);
  predecessor->Free(blocks[2]);
  predecessor.reset();
  Thread successor(&heaps_);
  EXPECT_EQ(successor.Malloc(kKind), blocks[2]);
  blocks.push_back(successor.Malloc(kKind));
  EXPECT_EQ(blocks[5], static_cast<char *>(blocks[4]) + kBytes);
  successor.FreeAll(blocks);
}

TEST_F(Heap, ATrimReturnsWhatAnEndedThreadLeft) {
  {
    Thread thread(&heaps_);
    for (uint32_t kind = HAK_KIND_TINY_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
      thread.FreeAll(thread.MallocMany(kind, ClassOf(kind).n_blocks + 1));
    }
  }
  EXPECT_GT(pool_.n_slabs_used, 0u);
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(pool_.n_slabs_used, 0u);
}

TEST_F(Heap, TheNextThreadsEndReturnsWhatWasLeftLongerThanTheDecayTimeAgo) {
  auto later = std::make_unique<Thread>(&heaps_);
  {
    Thread early(&heaps_);
    early.FreeAll(early.MallocSlab(kKind));
  }
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS - 1);
  { Thread unused(&heaps_); }  // takes the heap over, and leaves it for later again
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  EXPECT_EQ(RunsUsed(), 1u);
  later.reset();
  EXPECT_EQ(pool_.n_slabs_used, 0u);
}

TEST_F(Heap, WhatOthersFreeInAnOrphanReturnsOnceItIsMuch) {
  Thread other(&heaps_);
  auto ended = std::make_unique<Thread>(&heaps_);
  std::vector<void *> full = ended->MallocMany(kKind, 100 * ClassOf(kKind).n_blocks);
  ended.reset();
  EXPECT_EQ(RunsUsed(), 100u);
  other.FreeAll(full);
  hak_heap_flush(&other.cache);
  EXPECT_LE(RunsUsed(), 20u);
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(pool_.n_slabs_used, 0u);
}

TEST_F(Heap, WhatOthersFreeInManyHeapsOfEndedThreadsReturnsOrIsReused) {
  Thread other(&heaps_);
  constexpr size_t kHeaps = 30, kSlabs = 10;
  std::vector<void *> full;
  std::vector<std::unique_ptr<Thread>> ended;
  for (size_t i = 0; i < kHeaps; ++i) ended.push_back(std::make_unique<Thread>(&heaps_));
  for (auto &thread : ended) {
    std::vector<void *> blocks = thread->MallocMany(kKind, kSlabs * ClassOf(kKind).n_blocks);
    full.insert(full.end(), blocks.begin(), blocks.end());
  }
  ended.clear();
  hak_heap_set_trim(&heaps_, nullptr);  // no orphan is left that would be dissolved on demand
  EXPECT_EQ(RunsUsed(), kHeaps * kSlabs);
  other.FreeAll(full);
  hak_heap_flush(&other.cache);
  EXPECT_LE(RunsUsed(), 20u);
  std::vector<void *> again = other.MallocMany(kKind, 10 * ClassOf(kKind).n_blocks);
  EXPECT_LE(RunsUsed(), 20u);
  other.FreeAll(again);
}

TEST_F(Heap, WhatOthersFreeInAnOrphanIsFoundByWhoNeedsIt) {
  Thread other(&heaps_);
  auto ended = std::make_unique<Thread>(&heaps_);
  std::vector<void *> full = ended->MallocSlab(kKind);
  ended.reset();
  for (size_t i = ClassOf(kKind).n_blocks / 4; i != 0; --i) {
    other.Free(full.back());
    full.pop_back();
  }
  hak_heap_flush(&other.cache);
  hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS);
  void *p = other.Malloc(kKind);
  EXPECT_EQ(SlabOf(p), SlabOf(full[0]));
  EXPECT_EQ(OwnerOf(full[0]), other.cache.seat->owner_id);
  EXPECT_EQ(RunsUsed(), 1u);
  other.Free(p);
  other.FreeAll(full);
}

TEST_F(Heap, AThreadThatNeedsASlabLeavesAnOrphanForAMomentToItsSuccessor) {
  Thread other(&heaps_);
  auto ended = std::make_unique<Thread>(&heaps_);
  void *live = ended->Malloc(kKind);
  hak_heap *heap = ended->cache.heap;
  ended.reset();
  hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS - 1);
  void *p = other.Malloc(kKind);
  EXPECT_NE(SlabOf(p), SlabOf(live));
  Thread successor(&heaps_);
  EXPECT_EQ(successor.cache.heap, heap);
  void *next = successor.Malloc(kKind);
  EXPECT_EQ(SlabOf(next), SlabOf(live)) << "with its lists";
  successor.Free(next);
  successor.Free(live);
  other.Free(p);
}

// It has time, and who needs a slab has not.
TEST_F(Heap, WhatAnEndedThreadLeftUnusedGoesBackWithATickAndNotWhenASlabIsTaken) {
  Thread other(&heaps_);
  auto ended = std::make_unique<Thread>(&heaps_);
  std::vector<void *> blocks = ended->MallocSlab(kKind);
  void *of_current = ended->Malloc(kKind);
  for (size_t i = 1; i < blocks.size(); ++i) ended->Free(blocks[i]);
  ended.reset();
  hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS);
  void *p = other.Malloc(kKind + 1);
  EXPECT_EQ(heaps_.oldest_orphan, nullptr) << "it was searched for slabs of that kind";
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_heap_set_tick(&heaps_, &other.cache);
  EXPECT_GE(hak_os_fake_purged_bytes(), kRunBytes - kPageBytes);
  other.Free(p);
  other.Free(blocks[0]);
  other.Free(of_current);
}

// The tick may have read the clock before the thread ended.
TEST_F(Heap, AThreadThatEndedAfterATickBeganStaysAnOrphan) {
  Thread other(&heaps_);
  auto ended = std::make_unique<Thread>(&heaps_);
  void *live = ended->Malloc(kKind);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  ended.reset();
  ++heaps_.oldest_orphan->orphaned_ms;
  hak_heap_set_tick(&heaps_, &other.cache);
  EXPECT_NE(heaps_.oldest_orphan, nullptr);
  other.Free(live);
}

}  // namespace

// Heaps, one step at a time: what becomes of a block that is freed, of a slab that fills, sleeps, wakes and empties,
// and of a heap whose thread ends. A test plays several threads by turns, since every call names the cache it works on.
#include "heap/heap.h"
#include "heap/heap_inline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/bits.h"
#include "base/compiler.h"
#include "heap/test_heap.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"

namespace {

using hak_test::ClassOf;
using hak_test::Thread;

constexpr const char *kDrawnOrder = "the hardened library draws the order in which blocks are handed out";
constexpr uint32_t kKind = 4;  // 64-byte blocks
constexpr uint32_t kBytes = 16 * kKind;
constexpr uint32_t kMidKind = HAK_KIND_MID_LAST;  // 32 KiB, the longest runs

hak_slab *SlabOf(const void *p) {
  size_t kind = hak_entry_kind(hak_registry_find(p));
  return hak_slab_at(hak_kind_run_base(kind, reinterpret_cast<uintptr_t>(p)));
}

hak_slab_remote *RemoteOf(const void *p) { return hak_slab_remote_at(SlabOf(p)->base); }
uint32_t OwnerOf(const void *p) { return hak_entry_owner(hak_registry_find(p)); }
uint64_t PublishedOf(const void *p) { return RemoteOf(p)->word >> HAK_REMOTE_COUNT_SHIFT; }

using Heap = hak_test::HeapTest;

// Carving

TEST_F(Heap, CarvesABlockAfterTheOtherInAddressOrder) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << kDrawnOrder;
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kKind);
  uintptr_t base = SlabOf(blocks[0])->base;
  for (size_t i = 0; i < blocks.size(); ++i) {
    ASSERT_EQ(reinterpret_cast<uintptr_t>(blocks[i]), base + ClassOf(kKind).first + i * kBytes);
  }
  thread.FreeAll(blocks);
}

TEST_F(Heap, CarvesNoFurtherThanThePageItHasToTouch) {
  for (size_t page_bytes : {4096, 16384, 65536}) {
    Start(page_bytes, HAK_REFILL_COUNT_DEFAULT, false);
    for (uint32_t kind : {1u, 3u, 33u, 64u}) {
      Thread thread(&heaps_);
      std::vector<void *> blocks;
      hak_slab *slab;
      do {
        blocks.push_back(thread.Malloc(kind));
        slab = SlabOf(blocks.back());
        // The last strip that was carved lies in the page where the block just handed out begins.
        uintptr_t last = slab->base + 4096 * hak_log2_floor(slab->dirty);
        EXPECT_EQ(last / page_bytes, reinterpret_cast<uintptr_t>(blocks.back()) / page_bytes) << kind;
      } while (blocks.size() < slab->n_blocks);
      thread.FreeAll(blocks);
    }
  }
}

TEST_F(Heap, CarvesABatchForAHotKind) {
  const uint32_t kind = 16;
  Start(4096, 40, false);
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kind, ClassOf(kind).n_blocks + 1);
  hak_slab *slab = SlabOf(blocks.back());
  // 40 blocks, and to the end of the page.
  EXPECT_EQ(slab->uncarved, HAK_STRIPS_ALL & ~7);
  thread.FreeAll(blocks);
}

// Freeing

TEST_F(Heap, HandsTheBlocksOfTheCurrentSlabOutLastInFirstOut) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kKind, 10);
  thread.FreeAll(blocks);
  for (size_t i = blocks.size(); i-- != 0;) EXPECT_EQ(thread.Malloc(kKind), blocks[i]);
  thread.FreeAll(blocks);
}

TEST_F(Heap, GivesTheBlocksOfOtherSlabsBackToThoseSlabs) {
  Thread thread(&heaps_);
  std::vector<void *> full = thread.MallocSlab(kKind);
  std::vector<void *> current = thread.MallocMany(kKind, 3);
  thread.Free(full.back());
  EXPECT_EQ(SlabOf(full.back())->free, reinterpret_cast<uintptr_t>(full.back()));
  full.pop_back();
  current.push_back(thread.Malloc(kKind));
  EXPECT_EQ(SlabOf(current.back()), SlabOf(current[0]));
  thread.FreeAll(full);
  thread.FreeAll(current);
}

TEST_F(Heap, TellsRunsOfMidApartByTheDistanceOfTheirBlocks) {
  for (uint32_t kind = HAK_KIND_MID_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
    uintptr_t run_bytes = uintptr_t{1} << hak_kind_run_shift(kind);
    EXPECT_EQ(static_cast<uintptr_t>(intptr_t{hak_run_outside[kind]}), ~(run_bytes - HAK_BLOCK_ALIGNMENT)) << kind;
    EXPECT_EQ(kind <= HAK_KIND_SINGLE_SLAB_LAST, run_bytes == HAK_SLAB_BYTES) << kind;
  }
}

TEST_F(Heap, LetsAFullSlabSleepUntilAnEighthOfItIsFree) {
  Thread thread(&heaps_);
  std::vector<void *> first = thread.MallocSlab(kKind);
  std::vector<void *> second = thread.MallocSlab(kKind);
  hak_slab *slab = SlabOf(first[0]);
  size_t threshold = first.size() / 8;
  std::vector<void *> freed;
  for (size_t i = 0; i < threshold; ++i) {
    EXPECT_EQ(slab->state, HAK_SLAB_ASLEEP) << i;
    EXPECT_EQ(hak_slab_used(slab), first.size());
    thread.Free(first.back());
    freed.push_back(first.back());
    first.pop_back();
  }
  EXPECT_EQ(slab->state, HAK_SLAB_AWAKE);
  EXPECT_EQ(hak_slab_used(slab), first.size());

  std::set<void *> expected(freed.begin(), freed.end());
  for (size_t i = 0; i < threshold; ++i) {
    first.push_back(thread.Malloc(kKind));
    EXPECT_EQ(expected.count(first.back()), 1u);
  }
  EXPECT_EQ(slab->state, HAK_SLAB_CURRENT);
  EXPECT_EQ(pool_.n_slabs_used, 2u);
  thread.FreeAll(first);
  thread.FreeAll(second);
}

TEST_F(Heap, KeepsOneEmptySlabOfAKindAndAFewSparesAndReturnsTheRest) {
  Thread thread(&heaps_);
  std::vector<std::vector<void *>> slabs;
  for (int i = 0; i < 20; ++i) slabs.push_back(thread.MallocSlab(kKind));
  void *of_current = thread.Malloc(kKind);
  EXPECT_EQ(pool_.n_slabs_used, 21u);
  for (auto &blocks : slabs) thread.FreeAll(blocks);
  EXPECT_EQ(pool_.n_slabs_used, 2u + HAK_HEAP_SPARES);
  EXPECT_EQ(hak_registry_find(slabs[5][0]), 0u) << "what is free is no longer ours";
  hak_heap_trim(&thread.cache);
  EXPECT_EQ(pool_.n_slabs_used, 1u);
  thread.Free(of_current);
}

TEST_F(Heap, KeepsNothingThatIsEmptyOnADiet) {
  Start(4096, HAK_REFILL_COUNT_DEFAULT, true);
  Thread thread(&heaps_);
  std::vector<void *> first = thread.MallocSlab(kKind);
  std::vector<void *> second = thread.MallocSlab(kKind);
  void *of_current = thread.Malloc(kKind);
  thread.FreeAll(first);
  EXPECT_EQ(pool_.n_slabs_used, 2u);
  thread.FreeAll(second);
  EXPECT_EQ(pool_.n_slabs_used, 1u);
  thread.Free(of_current);
}

TEST_F(Heap, KeepsOfLongRunsNoMoreSlabsThanOfShortOnes) {
  constexpr uint32_t kLongKind = HAK_KIND_MID_FIRST + 16;
  size_t run_slabs = hak_kind_run_slabs(kLongKind);
  Thread thread(&heaps_);
  std::vector<std::vector<void *>> runs;
  for (int i = 0; i < 8; ++i) runs.push_back(thread.MallocSlab(kLongKind));
  void *of_current = thread.Malloc(kLongKind);
  for (auto &blocks : runs) thread.FreeAll(blocks);
  EXPECT_EQ(pool_.n_slabs_used, 2 * run_slabs + HAK_HEAP_SPARE_SLABS);
  hak_heap_trim(&thread.cache);
  EXPECT_EQ(pool_.n_slabs_used, run_slabs);
  thread.Free(of_current);
}

TEST_F(Heap, UsesASpareRunForAnyKindWithRunsOfThatLength) {
  constexpr uint32_t kLongKind = HAK_KIND_MID_FIRST + 16;
  Thread thread(&heaps_);
  std::vector<void *> first = thread.MallocSlab(kLongKind);
  std::vector<void *> second = thread.MallocSlab(kLongKind);
  void *current = thread.Malloc(kLongKind);
  uintptr_t spare = SlabOf(second[0])->base;
  thread.FreeAll(first);
  thread.FreeAll(second);
  void *shorter = thread.Malloc(kLongKind - 8);
  EXPECT_NE(SlabOf(shorter)->base, spare);
  void *longer = thread.Malloc(kLongKind + 8);
  EXPECT_NE(SlabOf(longer)->base, spare);
  void *other = thread.Malloc(kLongKind + 1);
  EXPECT_EQ(SlabOf(other)->base, spare);
  EXPECT_EQ(SlabOf(other)->block_bytes, ClassOf(kLongKind + 1).block_bytes);
  thread.FreeAll({shorter, longer, other, current});
  hak_heap_trim(&thread.cache);
  EXPECT_EQ(pool_.retain.backed_bytes, 0u);
  EXPECT_EQ(pool_.retain.unused_bytes, pool_.retain.outside_bytes);
}

TEST_F(Heap, ReturnsTheSparesThatStayedUnusedLongest) {
  constexpr uint32_t kLongKind = HAK_KIND_MID_FIRST + 8;  // runs of two slabs
  Thread thread(&heaps_);
  // One long run that nothing takes again, and then short ones that are taken and given back.
  std::vector<void *> kept = thread.MallocSlab(kLongKind);
  std::vector<void *> idle = thread.MallocSlab(kLongKind);
  void *current = thread.Malloc(kLongKind);
  thread.FreeAll(kept);
  uintptr_t idle_base = SlabOf(idle[0])->base;
  thread.FreeAll(idle);
  ASSERT_EQ(thread.cache.heap->spare[0], idle_base | 2);
  std::vector<std::vector<void *>> slabs;
  for (int i = 0; i < 3; ++i) slabs.push_back(thread.MallocSlab(kKind));
  void *of_current = thread.Malloc(kKind);
  for (auto &blocks : slabs) thread.FreeAll(blocks);
  ASSERT_EQ(thread.cache.heap->n_spares, 3u);
  thread.cache.heap->least_spares = 1;
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_heap_tick(&thread.cache);
  ASSERT_EQ(thread.cache.heap->n_spares, 2u);
  EXPECT_EQ(thread.cache.heap->spare[0] % HAK_SLAB_BYTES, 1u);
  EXPECT_EQ(thread.cache.heap->spare[1] % HAK_SLAB_BYTES, 1u);
  thread.FreeAll({current, of_current});
}

TEST_F(Heap, UsesASpareSlabForAnyTinyKind) {
  Thread thread(&heaps_);
  std::vector<void *> first = thread.MallocSlab(kKind);
  std::vector<void *> second = thread.MallocSlab(kKind);
  std::vector<void *> current = thread.MallocMany(kKind, 1);
  thread.FreeAll(first);
  uintptr_t spare = SlabOf(second[0])->base;
  thread.FreeAll(second);
  void *other = thread.Malloc(kKind + 1);
  EXPECT_EQ(SlabOf(other)->base, spare);
  EXPECT_EQ(SlabOf(other)->block_bytes, kBytes + 16);
  thread.Free(other);
  thread.FreeAll(current);
}

TEST_F(Heap, HandsAnEmptiedSlabOutInAddressOrderAgain) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << kDrawnOrder;
  Thread thread(&heaps_);
  std::vector<void *> first = thread.MallocSlab(kKind);
  std::vector<void *> second = thread.MallocSlab(kKind);
  std::shuffle(first.begin(), first.end(), std::mt19937(1));
  thread.FreeAll(first);
  std::vector<void *> again = thread.MallocSlab(kKind);
  EXPECT_TRUE(std::is_sorted(again.begin(), again.end()));
  EXPECT_EQ(SlabOf(again[0]), SlabOf(again.back()));
  EXPECT_EQ(pool_.n_slabs_used, 2u);
  thread.FreeAll(again);
  thread.FreeAll(second);
}

TEST_F(Heap, CurrentSlabSurvivesAnyNumberOfFrees) {
  // Frees that pass the thread's list by count down in vain; here as if two billion had gone before.
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kKind, 2);
  hak_slab *slab = SlabOf(blocks[0]);
  slab->countdown = 1;
  hak_heap_free(&thread.cache, blocks[0], "free");
  EXPECT_EQ(slab->state, HAK_SLAB_CURRENT);
  EXPECT_GT(slab->countdown, static_cast<int32_t>(slab->n_blocks));
  EXPECT_NE(hak_registry_find(blocks[1]), 0u);
  thread.Free(blocks[1]);
}

// Strips

// A slab of which every `nth` block is in use, not current, and these blocks.
struct Sparse {
  hak_slab *slab;
  std::vector<void *> used;
  void *of_current;
};

Sparse MakeSparse(Thread *thread, uint32_t kind, size_t nth) {
  std::vector<void *> blocks = thread->MallocSlab(kind);
  Sparse sparse = {SlabOf(blocks[0]), {}, thread->Malloc(kind)};
  for (size_t i = 0; i < blocks.size(); ++i) {
    memset(blocks[i], 0x5a, ClassOf(kind).block_bytes);
    if (i % nth == 0) {
      sparse.used.push_back(blocks[i]);
    } else {
      thread->Free(blocks[i]);
    }
  }
  return sparse;
}

TEST_F(Heap, TrimReturnsThePagesOfASparseSlabInWhichNoBlockIsInUse) {
  for (size_t page_bytes : {4096, 16384, 65536}) {
    Start(page_bytes, HAK_REFILL_COUNT_DEFAULT, false);
    for (uint32_t kind = 1; kind <= HAK_KIND_MID_LAST; ++kind) {
      SCOPED_TRACE(kind);
      Thread thread(&heaps_);
      const hak_class geometry = ClassOf(kind);
      Sparse sparse = MakeSparse(&thread, kind, geometry.n_blocks / 2);
      std::set<uintptr_t> pages;  // that hold a part of a block in use
      for (void *p : sparse.used) {
        auto address = reinterpret_cast<uintptr_t>(p);
        for (uintptr_t page = address / page_bytes; page <= (address + geometry.block_bytes - 1) / page_bytes; ++page) {
          pages.insert(page);
        }
      }
      thread.Free(sparse.of_current);
      size_t before = hak_os_fake_purged_bytes();
      size_t returned = hak_heap_trim(&thread.cache);
      EXPECT_EQ(hak_os_fake_purged_bytes() - before, returned);
      const size_t run_bytes = geometry.n_slabs * HAK_SLAB_BYTES;
      const size_t unit = std::max(page_bytes, run_bytes / HAK_STRIPS);
      EXPECT_LE(returned, run_bytes - pages.size() * page_bytes);
      EXPECT_GE(returned + sparse.used.size() * 2 * unit, run_bytes);
      for (void *p : sparse.used) {
        const auto *bytes = static_cast<const unsigned char *>(p);
        EXPECT_TRUE(std::all_of(bytes, bytes + geometry.block_bytes, [](unsigned char c) { return c == 0x5a; }));
      }
      EXPECT_EQ(hak_heap_trim(&thread.cache), 0u) << "nothing is left to return";

      // Every block is there, once.
      std::set<void *> all(sparse.used.begin(), sparse.used.end());
      while (all.size() < geometry.n_blocks) {
        void *p = thread.Malloc(kind);
        ASSERT_EQ(SlabOf(p), sparse.slab);
        ASSERT_TRUE(all.insert(p).second);
        memset(p, 0xa5, geometry.block_bytes);
      }
      thread.FreeAll({all.begin(), all.end()});
    }
  }
}

TEST_F(Heap, GivesStripsBackAsTheyBecomeFreeWhereMuchIsUnused) {
  pool_.retain.min_bytes = 0;
  Thread thread(&heaps_);
  Sparse sparse = MakeSparse(&thread, 32, 50);
  EXPECT_EQ(sparse.slab->state, HAK_SLAB_SPARSE);
  EXPECT_GT(hak_os_fake_purged_bytes(), HAK_SLAB_BYTES / 2);
  EXPECT_LT(__builtin_popcount(sparse.slab->dirty), HAK_STRIPS / 2);
  thread.FreeAll(sparse.used);
  thread.Free(sparse.of_current);
}

TEST_F(Heap, KeepsFreeStripsForTheDecayTimeWhereLittleIsUnused) {
  Thread thread(&heaps_);
  Sparse sparse = MakeSparse(&thread, 32, 50);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  EXPECT_EQ(pool_.retain.unused_bytes, HAK_SLAB_BYTES);
  hak_heap_tick(&thread.cache);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_heap_tick(&thread.cache);
  EXPECT_GT(hak_os_fake_purged_bytes(), HAK_SLAB_BYTES / 2);
  EXPECT_EQ(pool_.retain.unused_bytes, 0u);
  thread.FreeAll(sparse.used);
  thread.Free(sparse.of_current);
}

TEST_F(Heap, KeepsStripsThatCannotBePurged) {
  Thread thread(&heaps_);
  Sparse sparse = MakeSparse(&thread, 32, 50);
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, SIZE_MAX);
  thread.Free(sparse.of_current);
  EXPECT_EQ(hak_heap_trim(&thread.cache), 0u);
  EXPECT_EQ(sparse.slab->dirty, HAK_STRIPS_ALL);
  hak_os_fake_succeed();
  std::vector<void *> all = thread.MallocMany(32, ClassOf(32).n_blocks - sparse.used.size());
  for (void *p : all) EXPECT_EQ(SlabOf(p), sparse.slab);
  thread.FreeAll(all);
  thread.FreeAll(sparse.used);
}

TEST_F(Heap, RefillsFromTheFullerSlabsSoThatTheOthersCanEmpty) {
  Thread thread(&heaps_);
  std::vector<std::vector<void *>> slabs;
  for (int i = 0; i < 2; ++i) slabs.push_back(thread.MallocSlab(kKind));
  std::vector<void *> current = thread.MallocSlab(kKind);
  while (slabs[0].size() > slabs[1].size() / 2) {
    thread.Free(slabs[0].back());
    slabs[0].pop_back();
  }
  while (slabs[1].size() > 1) {
    thread.Free(slabs[1].back());
    slabs[1].pop_back();
  }
  void *p = thread.Malloc(kKind);
  EXPECT_EQ(SlabOf(p), SlabOf(slabs[0][0])) << "although the other one was freed to last";
  thread.Free(p);
  thread.FreeAll(current);
  for (auto &blocks : slabs) thread.FreeAll(blocks);
}

// Kinds that are not in use any more

// What a heap must give back for two looks at its kinds, of which the second finds what was not used since the first.
constexpr size_t kTwoLooksBytes = 9 * 1024 * 1024;

void AllocateAndFree(Thread *thread, uint32_t kind, size_t bytes) {
  thread->FreeAll(thread->MallocMany(kind, bytes / ClassOf(kind).block_bytes));
}

TEST_F(Heap, GivesUpTheCurrentSlabOfAKindThatIsNotInUseAnyMore) {
  for (uint32_t kind : {kKind, uint32_t{HAK_KIND_MID_FIRST}, kMidKind - 1}) {
    SCOPED_TRACE(kind);
    Thread thread(&heaps_);
    std::vector<void *> blocks = thread.MallocMany(kind, 5);
    void *in_use = blocks.back();
    blocks.pop_back();
    thread.FreeAll(blocks);
    hak_slab *slab = SlabOf(in_use);
    ASSERT_EQ(slab->state, HAK_SLAB_CURRENT);
    AllocateAndFree(&thread, kMidKind, kTwoLooksBytes);
    EXPECT_EQ(slab->state, HAK_SLAB_SPARSE);
    EXPECT_EQ(hak_slab_used(slab), 1u);

    EXPECT_TRUE(slab->counted) << "its memory is known to be unused";

    thread.Free(in_use);
    void *again = thread.Malloc(kind);
    EXPECT_EQ(SlabOf(again), slab);
    EXPECT_EQ(slab->state, HAK_SLAB_CURRENT);
    thread.Free(again);
  }
}

TEST_F(Heap, KeepsTheCurrentSlabOfAKindThatTakesMemory) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kKind, 1);
  hak_slab *slab = SlabOf(blocks[0]);
  for (int look = 0; look < 5; ++look) {
    const uint16_t uncarved = slab->uncarved;
    while (slab->uncarved == uncarved) blocks.push_back(thread.Malloc(kKind));
    AllocateAndFree(&thread, kMidKind, kTwoLooksBytes / 2);
    EXPECT_EQ(slab->state, HAK_SLAB_CURRENT) << look;
  }
  thread.FreeAll(blocks);
}

TEST_F(Heap, KnowsAllOfItsMemoryToBeUnusedWhenNothingSurvivesAPeak) {
  Thread thread(&heaps_);
  std::vector<void *> blocks;
  for (uint32_t kind = HAK_KIND_TINY_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
    for (void *p : thread.MallocMany(kind, 2 * ClassOf(kind).n_blocks + 1)) blocks.push_back(p);
  }
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
  EXPECT_GT(hak_retain_used_bytes(&pool_.retain), 4 * kTwoLooksBytes);
  thread.FreeAll(blocks);
  EXPECT_EQ(hak_retain_used_bytes(&pool_.retain), 0u);
  EXPECT_LE(pool_.retain.unused_bytes, HAK_RETAIN_MIN_BYTES + (size_t{1} << hak_kind_run_shift(kMidKind)));
}

// Threads that end

TEST_F(Heap, ASuccessorAdoptsTheHeapAndFreesItsBlocksAsItsOwn) {
  auto predecessor = std::make_unique<Thread>(&heaps_);
  std::vector<void *> full = predecessor->MallocSlab(kKind);
  std::vector<void *> current = predecessor->MallocMany(kKind, 1);
  memset(full[7], 0x5a, kBytes);
  predecessor.reset();

  Thread successor(&heaps_);
  EXPECT_EQ(heaps_.n_heaps, 2u) << "the public one and the inherited one";
  EXPECT_EQ(*static_cast<unsigned char *>(full[7]), 0x5a);
  EXPECT_EQ(OwnerOf(full[0]), successor.cache.owner_id);
  successor.FreeAll(full);
  EXPECT_EQ(RemoteOf(full[0])->word, SlabOf(full[0])->base) << "nothing was published";
  successor.FreeAll(current);
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
      EXPECT_EQ(OwnerOf(p), other.cache.owner_id);
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
  EXPECT_EQ(pool_.n_slabs_used, 1u);
  later.reset();
  EXPECT_EQ(pool_.n_slabs_used, 0u);
}

TEST_F(Heap, WhatOthersFreeInAnOrphanReturnsOnceItIsMuch) {
  Thread other(&heaps_);
  auto ended = std::make_unique<Thread>(&heaps_);
  std::vector<void *> full = ended->MallocMany(kKind, 100 * ClassOf(kKind).n_blocks);
  ended.reset();
  EXPECT_EQ(pool_.n_slabs_used, 100u);
  other.FreeAll(full);
  hak_heap_flush(&other.cache);
  EXPECT_LE(pool_.n_slabs_used, 20u);
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
  EXPECT_EQ(pool_.n_slabs_used, kHeaps * kSlabs);
  other.FreeAll(full);
  hak_heap_flush(&other.cache);
  EXPECT_LE(pool_.n_slabs_used, 20u);
  std::vector<void *> again = other.MallocMany(kKind, 10 * ClassOf(kKind).n_blocks);
  EXPECT_LE(pool_.n_slabs_used, 20u);
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
  EXPECT_EQ(OwnerOf(full[0]), other.cache.owner_id);
  EXPECT_EQ(pool_.n_slabs_used, 1u);
  other.Free(p);
  other.FreeAll(full);
}

TEST_F(Heap, ACacheWithoutAHeapPublishesEachBlockAtOnce) {
  Thread owner(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kKind, 3);
  hak_cache ended = HAK_CACHE_INIT;
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    hak_heap_free(&ended, blocks[i], "free");
    EXPECT_EQ(PublishedOf(blocks[0]), i + 1);
  }
}

// Remote frees

TEST_F(Heap, GathersRemoteFreesUntilASlotIsFull) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kKind, 40);
  for (int i = 0; i < 32; ++i) {
    other.Free(blocks[i]);
    EXPECT_EQ(PublishedOf(blocks[0]), 0u);
  }
  other.Free(blocks[32]);
  EXPECT_EQ(PublishedOf(blocks[0]), 32u);
  hak_heap_flush(&other.cache);
  EXPECT_EQ(PublishedOf(blocks[0]), 33u);
  for (int i = 33; i < 40; ++i) owner.Free(blocks[i]);
}

TEST_F(Heap, HoldsBackFewerBlocksTheLargerTheyAre) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kMidKind, 3);
  for (uint64_t i = 0; i < 3; ++i) {
    other.Free(blocks[i]);
    EXPECT_EQ(PublishedOf(blocks[0]), i);
  }
}

TEST_F(Heap, HoldsBackByTheSizeThatASlabHasNowAndNotByAnEarlierOne) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  void *small = owner.Malloc(1);
  uintptr_t run = hak_kind_run_base(kMidKind, reinterpret_cast<uintptr_t>(small));
  other.Free(small);
  hak_heap_flush(&other.cache);
  hak_heap_detach(&owner.cache);
  hak_heap_set_trim(&heaps_, nullptr);
  ASSERT_EQ(pool_.n_slabs_used, 0u);
  ASSERT_TRUE(hak_heap_attach(&heaps_, &owner.cache));

  std::vector<void *> large = owner.MallocMany(kMidKind, 3);
  ASSERT_EQ(SlabOf(large[0])->base, run) << "the test needs the same address";
  other.Free(large[0]);
  other.Free(large[1]);
  EXPECT_EQ(PublishedOf(large[0]), 1u);
  other.Free(large[2]);
}

TEST_F(Heap, AgeBringsOutWhatALonelySlotHolds) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  void *lonely = owner.Malloc(kKind);
  std::vector<void *> blocks;
  while (blocks.size() < HAK_OUTBOX_SLOTS * HAK_OUTBOX_AGE) {
    void *p = owner.Malloc(kKind + 1);
    if (SlabOf(p)->base >> HAK_SLAB_SHIFT == SlabOf(lonely)->base >> HAK_SLAB_SHIFT) continue;
    blocks.push_back(p);
  }
  other.Free(lonely);
  EXPECT_EQ(PublishedOf(lonely), 0u);
  other.FreeAll(blocks);
  EXPECT_EQ(PublishedOf(lonely), 1u);
}

TEST_F(Heap, MailsASlabOnceHoweverManyPublicationsItGets) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  Thread another(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kKind, 6);
  for (int i = 0; i < 6; ++i) {
    Thread &thread = i % 2 == 0 ? other : another;
    thread.Free(blocks[i]);
    hak_heap_flush(&thread.cache);
    EXPECT_EQ(owner.cache.heap->mail, RemoteOf(blocks[0]));
    EXPECT_EQ(owner.cache.heap->mail->mail_next, nullptr);
  }
  EXPECT_EQ(PublishedOf(blocks[0]), 6u);
}

TEST_F(Heap, ASlabThatIsAboutToBeMailedIsNotReleased) {
  Thread owner(&heaps_);
  std::vector<void *> blocks = owner.MallocSlab(kKind);
  std::vector<void *> others = owner.MallocSlab(kKind);
  void *of_current = owner.Malloc(kKind);
  // As if another thread had published, the blocks had been collected while the slab was current, and the mail was
  // still to come.
  hak_slab_remote *remote = RemoteOf(blocks[0]);
  remote->word |= HAK_REMOTE_IN_MAIL;
  owner.FreeAll(others);
  owner.FreeAll(blocks);
  EXPECT_NE(hak_registry_find(blocks[0]), 0u) << "released when it became empty";
  hak_heap_trim(&owner.cache);
  EXPECT_NE(hak_registry_find(blocks[0]), 0u) << "released by the trim";

  remote->mail_next = owner.cache.heap->mail;
  owner.cache.heap->mail = remote;
  hak_heap_trim(&owner.cache);
  EXPECT_EQ(hak_registry_find(blocks[0]), 0u);
  owner.Free(of_current);
}

TEST_F(Heap, TheOwnerReusesWhatOthersFreedBeforeItGrows) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = owner.MallocSlab(kKind);
  for (int round = 0; round < 50; ++round) {
    other.FreeAll(blocks);
    hak_heap_flush(&other.cache);
    blocks = owner.MallocSlab(kKind);
  }
  // A batch may be missed by the look at the remote list that sends the slab to sleep.
  EXPECT_LE(pool_.n_slabs_used, 2u);
  owner.FreeAll(blocks);
}

TEST_F(Heap, TheOwnerFindsFullSlabsThatOthersHaveFreed) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> first = owner.MallocSlab(kKind);
  std::vector<void *> second = owner.MallocSlab(kKind);
  std::vector<void *> third = owner.MallocSlab(kKind);
  other.FreeAll(first);
  other.FreeAll(second);
  hak_heap_flush(&other.cache);
  first = owner.MallocSlab(kKind);
  second = owner.MallocSlab(kKind);
  EXPECT_EQ(pool_.n_slabs_used, 3u);
  for (auto *blocks : {&first, &second, &third}) owner.FreeAll(*blocks);
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

TEST_F(Heap, ForwardsMailThatArrivesAfterASlabHasChangedHands) {
  Thread first(&heaps_);
  Thread second(&heaps_);
  Thread third(&heaps_);
  std::vector<void *> blocks = first.MallocMany(kKind, 100);
  third.Free(blocks.back());
  hak_heap_flush(&third.cache);  // in the mail of the first
  blocks.pop_back();
  hak_heap_detach(&first.cache);
  hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS);
  void *p = second.Malloc(kKind);
  EXPECT_EQ(SlabOf(p), SlabOf(blocks[0]));
  EXPECT_EQ(RemoteOf(p)->owner, second.cache.heap);
  second.Free(p);

  // Mail that was addressed before the slab changed hands.
  third.Free(blocks.back());
  hak_heap_flush(&third.cache);
  hak_slab_remote *mail = second.cache.heap->mail;
  ASSERT_EQ(mail, RemoteOf(blocks[0]));
  second.cache.heap->mail = nullptr;
  ASSERT_TRUE(hak_heap_attach(&heaps_, &first.cache));
  first.cache.heap->mail = mail;
  hak_heap_trim(&first.cache);
  EXPECT_EQ(first.cache.heap->mail, nullptr);
  EXPECT_EQ(second.cache.heap->mail, mail);
  blocks.pop_back();
  second.FreeAll(blocks);
}

// Misuse

std::string Fatal(const void *p, const char *reason) {
  char text[100];
  snprintf(text, sizeof text, "^\\[HAKMEM\\] FATAL: free\\(%p\\): %s\n$", p, reason);
  return text;
}

class HeapMisuse : public Heap {};

TEST_F(HeapMisuse, DoubleFreeInTheThreadsListStops) {
  Thread thread(&heaps_);
  for (uint32_t kind : {kKind, kMidKind}) {
    void *p = thread.Malloc(kind);
    thread.Free(p);
    EXPECT_EXIT(thread.Free(p), ::testing::KilledBySignal(SIGABRT), Fatal(p, "double free"));
  }
}

TEST_F(HeapMisuse, DoubleFreeInAnotherSlabStops) {
  Thread thread(&heaps_);
  for (uint32_t kind : {kKind, kMidKind}) {
    std::vector<void *> blocks = thread.MallocMany(kind, ClassOf(kind).n_blocks + 1);
    thread.Free(blocks[5]);
    EXPECT_EXIT(thread.Free(blocks[5]), ::testing::KilledBySignal(SIGABRT), Fatal(blocks[5], "double free"));
    blocks.erase(blocks.begin() + 5);
    thread.FreeAll(blocks);
  }
}

TEST_F(HeapMisuse, DoubleFreeInTheOutboxStopsHoweverFullItIs) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  for (uint32_t kind : {kKind, kMidKind}) {
    for (void *p : owner.MallocMany(kind, 40 < ClassOf(kind).n_blocks ? 40 : 10)) {
      other.Free(p);
      EXPECT_EXIT(other.Free(p), ::testing::KilledBySignal(SIGABRT), Fatal(p, "double free"));
    }
  }
}

TEST_F(HeapMisuse, DoubleFreeInACacheWithoutAHeapStops) {
  Thread owner(&heaps_);
  void *p = owner.Malloc(kKind);
  hak_cache ended = HAK_CACHE_INIT;
  hak_heap_free(&ended, p, "free");
  EXPECT_EXIT(hak_heap_free(&ended, p, "free"), ::testing::KilledBySignal(SIGABRT), Fatal(p, "double free"));
}

TEST_F(HeapMisuse, AnUnalignedPointerStopsInEverySlab) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kKind, ClassOf(kKind).n_blocks + 1);
  for (void *p : {blocks.front(), blocks.back()}) {
    for (int distance : {1, 4, 8, 15}) {
      void *inside = static_cast<char *>(p) + distance;
      for (Thread *thread : {&owner, &other}) {
        EXPECT_EXIT(thread->Free(inside), ::testing::KilledBySignal(SIGABRT),
                    Fatal(inside, "pointer is not aligned to 16 bytes"));
      }
    }
  }
  owner.FreeAll(blocks);
}

TEST_F(HeapMisuse, APointerThatWasNeverHandedOutStops) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kKind, ClassOf(kKind).n_blocks + 1);
  uintptr_t base = SlabOf(blocks.front())->base;
  // Before the first block, and behind the last where that is not the end of the slab.
  hak_class geometry = ClassOf(11);
  std::vector<void *> others = thread.MallocMany(geometry.kind, geometry.n_blocks + 1);
  uintptr_t end = SlabOf(others.front())->base + geometry.first + geometry.n_blocks * geometry.block_bytes;
  for (uintptr_t address : {base, base + 16, base + ClassOf(kKind).first - 16, end}) {
    auto *p = reinterpret_cast<void *>(address);
    EXPECT_EXIT(thread.Free(p), ::testing::KilledBySignal(SIGABRT), Fatal(p, "pointer was not allocated by hakmem"));
  }
  thread.FreeAll(blocks);
  thread.FreeAll(others);
}

// Running out

TEST_F(Heap, ABlockFreedWhenNothingIsLeftCanBeHadAgain) {
  Thread thread(&heaps_);
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 2, SIZE_MAX);
  std::vector<void *> blocks;
  while (void *p = thread.Malloc(kKind)) blocks.push_back(p);
  EXPECT_EQ(blocks.size(), 32u * ClassOf(kKind).n_blocks);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(thread.Malloc(kKind), nullptr);
    thread.Free(blocks.back());
    EXPECT_EQ(thread.Malloc(kKind), blocks.back());
  }
  // In the current slab at once, in all others from an eighth on.
  for (size_t i = 0; i < blocks.size() / 2; ++i) thread.Free(blocks[i]);
  for (size_t i = 0; i < blocks.size() / 2; ++i) {
    blocks[i] = thread.Malloc(kKind);
    ASSERT_NE(blocks[i], nullptr);
  }
  EXPECT_EQ(std::set<void *>(blocks.begin(), blocks.end()).size(), blocks.size());
  EXPECT_EQ(thread.Malloc(kKind), nullptr);
  thread.FreeAll(blocks);
}

TEST_F(Heap, ASleepingSlabIsWokenEarlyWhenMemoryHasRunOut) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kKind);
  std::vector<void *> more = thread.MallocSlab(kKind);
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  while (void *p = thread.Malloc(kKind)) more.push_back(p);
  thread.Free(blocks.back());
  EXPECT_EQ(thread.Malloc(kKind), blocks.back());
  hak_os_fake_succeed();
  thread.FreeAll(blocks);
  thread.FreeAll(more);
}

TEST_F(Heap, LosesNothingWhicheverMappingFails) {
  for (size_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    Start(4096, HAK_REFILL_COUNT_DEFAULT, false);
    hak_os_fake_fail(HAK_OS_FAKE_MAP, nth, 1);
    hak_cache cache = HAK_CACHE_INIT;
    size_t n_refused = 0;
    while (!hak_heap_attach(&heaps_, &cache)) ++n_refused;
    hak_heap_detach(&cache);
    {
      Thread thread(&heaps_);
      std::set<void *> blocks;
      for (size_t i = 0; i < 4000; ++i) {
        void *p;
        while ((p = thread.Malloc(1 + i % HAK_KIND_MID_LAST)) == nullptr) ++n_refused;
        EXPECT_TRUE(blocks.insert(p).second);
      }
      for (void *p : blocks) thread.Free(p);
    }
    EXPECT_LE(n_refused, 1u);
    hak_heap_set_trim(&heaps_, nullptr);
    EXPECT_EQ(pool_.n_slabs_used, 0u);
    if (n_refused == 0) {
      EXPECT_GT(nth, 3u);
      break;
    }
  }
}

// Scale

TEST_F(Heap, FourMillionLiveBlocksOfOneClassReturnToTheStart) {
  Thread thread(&heaps_);
  constexpr size_t kCount = 4 << 20;
  std::vector<void *> blocks = thread.MallocMany(1, kCount);
  const size_t n_slabs = (kCount + ClassOf(1).n_blocks - 1) / ClassOf(1).n_blocks;
  EXPECT_EQ(pool_.n_slabs_used, n_slabs);
  // Hot: two SuperSlabs at a time.
  EXPECT_LE(pool_.n_superslabs, n_slabs / 32 + 2);
  for (size_t i = 0; i < kCount; ++i) *static_cast<size_t *>(blocks[i]) = i;
  for (size_t i = 0; i < kCount; ++i) ASSERT_EQ(*static_cast<size_t *>(blocks[i]), i);
  thread.FreeAll(blocks);
  hak_heap_trim(&thread.cache);
  EXPECT_LE(pool_.n_slabs_used, 1u);
  hak_pool_trim(&pool_, 0);
  EXPECT_LE(pool_.n_superslabs, 1u);
}

// Random programs of several threads by turns, on all kinds, with ends and successors: each block keeps its content.
class HeapProgram : public Heap, public ::testing::WithParamInterface<unsigned> {};

TEST_P(HeapProgram, EveryBlockKeepsItsContentAndEverySlabReturns) {
  std::mt19937 random(GetParam());
  Start(GetParam() % 2 == 0 ? 4096 : 65536, 1 + random() % 200, random() % 3 == 0);
  struct Block {
    uint64_t *p;
    uint32_t kind;
    uint64_t pattern;
  };
  std::vector<std::unique_ptr<Thread>> threads(4);
  std::vector<Block> blocks;
  auto words = [](const Block &block) { return ClassOf(block.kind).block_bytes / sizeof(uint64_t); };
  const uint32_t kinds[] = {1, 2, 5, 31, 64, 65, 72, 80, 96, 104};
  for (int step = 0; step < 60000; ++step) {
    std::unique_ptr<Thread> &thread = threads[random() % threads.size()];
    if (thread == nullptr) thread = std::make_unique<Thread>(&heaps_);
    size_t wanted = step / 10000 % 2 == 0 ? 3000 : 300;
    if (random() % 2000 == 0) {
      thread.reset();
    } else if (random() % 1000 == 0) {
      hak_heap_trim(&thread->cache);
    } else if (blocks.size() < wanted && random() % 4 != 0) {
      uint32_t kind = kinds[std::min(random() % 10, random() % 10)];
      Block block = {static_cast<uint64_t *>(thread->Malloc(kind)), kind, random()};
      ASSERT_NE(block.p, nullptr);
      block.p[0] = block.p[1] = block.p[words(block) - 1] = block.pattern;
      blocks.push_back(block);
    } else if (!blocks.empty()) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      Block block = blocks.back();
      blocks.pop_back();
      ASSERT_EQ(block.p[0], block.pattern);
      ASSERT_EQ(block.p[1], block.pattern);
      ASSERT_EQ(block.p[words(block) - 1], block.pattern);
      thread->Free(block.p);
    }
  }
  for (const Block &block : blocks) {
    std::unique_ptr<Thread> &thread = threads[random() % threads.size()];
    if (thread == nullptr) thread = std::make_unique<Thread>(&heaps_);
    thread->Free(block.p);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, HeapProgram, ::testing::Range(1u, 9u));

}  // namespace

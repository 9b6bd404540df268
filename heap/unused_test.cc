// Memory that no block uses: the empty slabs that a heap keeps or returns, the pages of sparse slabs, and the slabs of
// kinds that are not in use any more.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "base/poison.h"
#include "heap/heap.h"
#include "heap/link.h"
#include "heap/test_heap.h"
#include "platform/os_fake.h"
#include "superslab/pool.h"
#include "superslab/registry.h"
#include "superslab/superslab.h"

namespace {

using hak_test::ClassOf;
using hak_test::kBytes;
using hak_test::kKind;
using hak_test::kMidKind;
using hak_test::kPageBytes;
using hak_test::kRunBytes;
using hak_test::SlabOf;
using hak_test::Thread;

using Heap = hak_test::HeapTest;

// The first kind with runs of twice the length of the shortest.
constexpr uint32_t kLongKind = HAK_KIND_MID_FIRST + 24;

// Empty slabs

TEST_F(Heap, KeepsAFewSparesAndReturnsTheRest) {
  Thread thread(&heaps_);
  std::vector<std::vector<void *>> slabs;
  for (int i = 0; i < 20; ++i) slabs.push_back(thread.MallocSlab(kKind));
  void *of_current = thread.Malloc(kKind);
  EXPECT_EQ(RunsUsed(), 21u);
  for (auto &blocks : slabs) thread.FreeAll(blocks);
  EXPECT_EQ(RunsUsed(), 1u + HAK_HEAP_SPARES);
  EXPECT_EQ(hak_registry_find(slabs[5][0]), 0u) << "what is free is no longer ours";
  hak_heap_trim(&thread.cache);
  EXPECT_EQ(RunsUsed(), 1u);
  thread.Free(of_current);
}

TEST_F(Heap, SparesOfAllHeapsTakeHalfOfWhatIsKeptAtMost) {
  std::vector<std::unique_ptr<Thread>> threads;
  for (int i = 0; i < 8; ++i) {
    threads.push_back(std::make_unique<Thread>(&heaps_));
    std::vector<void *> blocks = threads.back()->MallocMany(kKind, 4 * ClassOf(kKind).n_blocks);
    threads.back()->FreeAll(blocks);
  }
  EXPECT_EQ(pool_.retain.spare_bytes, HAK_RETAIN_MIN_BYTES / 2);
  EXPECT_EQ(threads[0]->cache.heap->n_spares, HAK_HEAP_SPARES);
  EXPECT_EQ(threads[7]->cache.heap->n_spares, 0u);
  // One that is taken makes room for another heap's.
  void *p = threads[0]->Malloc(kKind + 1);
  std::vector<void *> blocks = threads[7]->MallocMany(kKind + 1, ClassOf(kKind + 1).n_blocks + 1);
  threads[7]->FreeAll(blocks);
  EXPECT_EQ(threads[7]->cache.heap->n_spares, 1u);
  threads[0]->Free(p);
  threads.clear();
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(pool_.retain.spare_bytes, 0u);
}

TEST_F(Heap, KeepsTheOnlySlabOfAKindIfHalfOfItHoldsNoPages) {
  for (size_t kib : {128, 132}) {
    Start(4096, HAK_REFILL_COUNT_DEFAULT, false);
    Thread thread(&heaps_);
    std::vector<void *> blocks;
    while (blocks.empty() || hak_slab_dirty_bytes(SlabOf(blocks[0])) < kib * 1024) {
      for (void *p : thread.MallocMany(kKind, 4096 / kBytes - 1)) blocks.push_back(p);
    }
    ASSERT_EQ(hak_slab_dirty_bytes(SlabOf(blocks[0])), kib * 1024);
    const hak_slab *slab = SlabOf(blocks[0]);
    hak_heap_trim(&thread.cache);
    ASSERT_NE(slab->state, HAK_SLAB_CURRENT);
    thread.FreeAll(blocks);
    EXPECT_EQ(thread.cache.heap->n_spares, kib == 128 ? 0u : 1u);
    EXPECT_EQ(thread.cache.heap->bin[kKind].slabs[HAK_SLAB_SPARSE], kib == 128 ? slab : nullptr);
    hak_heap_trim(&thread.cache);
  }
}

TEST_F(Heap, KeepsNothingThatIsEmptyOnADiet) {
  Start(4096, HAK_REFILL_COUNT_DEFAULT, true);
  Thread thread(&heaps_);
  std::vector<void *> first = thread.MallocSlab(kKind);
  std::vector<void *> second = thread.MallocSlab(kKind);
  void *of_current = thread.Malloc(kKind);
  thread.FreeAll(first);
  EXPECT_EQ(RunsUsed(), 2u);
  thread.FreeAll(second);
  EXPECT_EQ(RunsUsed(), 1u);
  thread.Free(of_current);
}

TEST_F(Heap, KeepsOfLongRunsNoMoreSlabsThanOfShortOnes) {
  size_t run_slabs = hak_kind_run_slabs(kLongKind);
  Thread thread(&heaps_);
  std::vector<std::vector<void *>> runs;
  for (int i = 0; i < 8; ++i) runs.push_back(thread.MallocSlab(kLongKind));
  void *of_current = thread.Malloc(kLongKind);
  for (auto &blocks : runs) thread.FreeAll(blocks);
  EXPECT_EQ(pool_.n_slabs_used, run_slabs + HAK_HEAP_SPARE_SLABS);
  hak_heap_trim(&thread.cache);
  EXPECT_EQ(pool_.n_slabs_used, run_slabs);
  thread.Free(of_current);
}

TEST_F(Heap, UsesASpareRunForAnyKindWithRunsOfThatLength) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kLongKind);
  void *current = thread.Malloc(kLongKind);
  uintptr_t spare = SlabOf(blocks[0])->base;
  thread.FreeAll(blocks);
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
  Thread thread(&heaps_);
  std::vector<void *> older = thread.MallocSlab(kKind);
  std::vector<void *> newer = thread.MallocSlab(kKind);
  void *of_current = thread.Malloc(kKind);
  const uintptr_t older_base = SlabOf(older[0])->base;
  const uintptr_t newer_base = SlabOf(newer[0])->base;
  for (const auto *blocks : {&older, &newer}) thread.FreeAll(*blocks);
  ASSERT_EQ(thread.cache.heap->n_spares, 2u);
  ASSERT_EQ(thread.cache.heap->spare[0], older_base | ClassOf(kKind).n_slabs);
  // One of them was taken and given back meanwhile.
  thread.cache.heap->least_spares = 1;
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_heap_tick(&thread.cache);
  ASSERT_EQ(thread.cache.heap->n_spares, 1u);
  EXPECT_EQ(thread.cache.heap->spare[0], newer_base | ClassOf(kKind).n_slabs);
  thread.Free(of_current);
}

TEST_F(Heap, UsesASpareSlabForAnyTinyKind) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kKind);
  std::vector<void *> current = thread.MallocMany(kKind, 1);
  uintptr_t spare = SlabOf(blocks[0])->base;
  thread.FreeAll(blocks);
  void *other = thread.Malloc(kKind + 1);
  EXPECT_EQ(SlabOf(other)->base, spare);
  EXPECT_EQ(SlabOf(other)->block_bytes, kBytes + 16);
  thread.Free(other);
  thread.FreeAll(current);
}

// Strips

TEST_F(Heap, EachLookFindsTheStripsThatHaveBecomeFreeSinceTheLast) {
  constexpr uint32_t kSmallKind = 4;
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kSmallKind);
  void *of_current = thread.Malloc(kSmallKind);
  std::sort(blocks.begin(), blocks.end());
  const hak_slab *slab = SlabOf(blocks[0]);
  ASSERT_GT(slab->n_blocks, 512u);
  for (unsigned quarters_left : {3u, 2u, 1u}) {
    const size_t n_left = slab->n_blocks * quarters_left / 4;
    while (blocks.size() > n_left) {
      thread.Free(blocks.back());
      blocks.pop_back();
    }
    hak_heap_trim(&thread.cache);
    EXPECT_EQ(hak_count_bits(slab->dirty), hak_kind_strips(kSmallKind) / 4 * quarters_left);
  }
  thread.FreeAll(blocks);
  thread.Free(of_current);
}

TEST_F(Heap, ASlabOfSmallBlocksIsNotLookedAtBeforeItHasOneForEachStrip) {
  constexpr uint32_t kSmallKind = 4;
  pool_.retain.min_bytes = SIZE_MAX;
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kSmallKind);
  void *of_current = thread.Malloc(kSmallKind);
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
  const hak_slab *slab = SlabOf(blocks[0]);
  ASSERT_GT(slab->n_blocks / 16u, hak_kind_strips(kSmallKind));
  while (blocks.size() > hak_kind_strips(kSmallKind)) {
    EXPECT_FALSE(slab->counted) << blocks.size();
    thread.Free(blocks.back());
    blocks.pop_back();
  }
  EXPECT_TRUE(slab->counted);
  const size_t purged = hak_os_fake_purged_bytes();
  hak_heap_trim(&thread.cache);
  EXPECT_GT(hak_os_fake_purged_bytes() - purged, kRunBytes / 4) << "of a third nothing is in use by chance";
  thread.FreeAll(blocks);
  thread.Free(of_current);
}

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
      EXPECT_GE(hak_os_fake_purged_bytes() - before, returned) << "besides, what lies inside of free blocks";
      const size_t run_bytes = geometry.n_slabs * HAK_SLAB_BYTES;
      const size_t unit = std::max(page_bytes, size_t{1} << hak_kind_strip_shift(kind));
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

// Whether the memory of a run is known to be zero, as whoever gets it next from the pool is told.
bool IsClean(uintptr_t base) {
  const hak_superslab *superslab = hak_superslab_descriptor(base);
  return (superslab->dirty_map >> (base % HAK_SUPERSLAB_BYTES / HAK_SLAB_BYTES) & 1) == 0;
}

// Blocks reach from one strip into the next, which may have been purged before they are handed out again.
TEST_F(Heap, WhatGoesBackAsCleanIsZero) {
  for (uint32_t kind = 1; kind <= HAK_KIND_MID_LAST; ++kind) {
    SCOPED_TRACE(kind);
    Thread thread(&heaps_);
    const hak_class geometry = ClassOf(kind);
    Sparse sparse = MakeSparse(&thread, kind, geometry.n_blocks / 2);
    thread.Free(sparse.of_current);
    hak_heap_trim(&thread.cache);
    size_t n_free = 0;
    for (uintptr_t block = sparse.slab->free; block != sparse.slab->base; block = hak_link_get(block)) ++n_free;
    std::vector<void *> again;
    while (again.size() < n_free) {
      again.push_back(thread.Malloc(kind));
      ASSERT_EQ(SlabOf(again.back()), sparse.slab);
      memset(again.back(), 0xa5, geometry.block_bytes);
    }
    thread.FreeAll(again);
    hak_heap_trim(&thread.cache);
    const auto *memory = reinterpret_cast<const unsigned char *>(sparse.slab->base);
    thread.FreeAll(sparse.used);
    // The only slab of its kind stays, without its pages, and leaves as it is.
    for (int i = 0; i < 2; ++i) {
      hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
      hak_heap_tick(&thread.cache);
    }
    hak_heap_trim(&thread.cache);
    ASSERT_EQ(pool_.n_slabs_used, 0u);
    ASSERT_TRUE(IsClean(reinterpret_cast<uintptr_t>(memory)));
    hak_unpoison(memory, geometry.n_slabs * HAK_SLAB_BYTES);
    const unsigned char *end = memory + geometry.n_slabs * HAK_SLAB_BYTES;
    EXPECT_TRUE(std::all_of(memory, end, [](unsigned char c) { return c == 0; }));
  }
}

TEST_F(Heap, GivesStripsBackAsTheyBecomeFreeWhereMuchIsUnused) {
  pool_.retain.min_bytes = 0;
  Thread thread(&heaps_);
  Sparse sparse = MakeSparse(&thread, 32, 50);
  EXPECT_EQ(sparse.slab->state, HAK_SLAB_SPARSE);
  EXPECT_GT(hak_os_fake_purged_bytes(), kRunBytes / 2);
  EXPECT_LT(hak_count_bits(sparse.slab->dirty), hak_kind_strips(32) / 2);
  thread.FreeAll(sparse.used);
  thread.Free(sparse.of_current);
}

TEST_F(Heap, GivesBackWhatBecomesFreeOfASlabThatWasLookedAtBefore) {
  pool_.retain.min_bytes = 0;
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(32);
  void *of_current = thread.Malloc(32);
  std::sort(blocks.begin(), blocks.end(), std::greater<>());
  const hak_slab *slab = SlabOf(blocks[0]);
  auto free_to = [&](size_t n_left) {
    for (; blocks.size() > n_left; blocks.pop_back()) thread.Free(blocks.back());
  };
  const size_t n_last = hak_slab_last_blocks(slab);
  for (size_t n_left : {n_last, n_last / 2, n_last / 4}) {
    free_to(n_left);
    EXPECT_LE(hak_count_bits(slab->dirty), n_left / 8 + 2) << n_left << " blocks, of which a strip has 8";
  }
  free_to(0);
  thread.Free(of_current);
}

TEST_F(Heap, LooksNoMoreAtASlabThatIsFreedAtRandom) {
  pool_.retain.min_bytes = 0;
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kKind);
  void *of_current = thread.Malloc(kKind);
  std::sort(blocks.begin(), blocks.end());
  const hak_slab *slab = SlabOf(blocks[0]);
  // Half of it by place, the rest at random: no strip of that is free when the slab comes to its last blocks.
  std::shuffle(blocks.begin(), blocks.begin() + static_cast<ptrdiff_t>(blocks.size() / 2), std::mt19937(1));
  for (; blocks.size() > hak_slab_last_blocks(slab); blocks.pop_back()) thread.Free(blocks.back());
  ASSERT_EQ(slab->state, HAK_SLAB_SPARSE);
  EXPECT_GE(hak_count_bits(slab->uncarved), hak_kind_strips(kKind) * 2 / 5) << "it was looked at";
  EXPECT_EQ(slab->rest, 0u) << "and will not be again before it is empty";
  thread.FreeAll(blocks);
  thread.Free(of_current);
}

TEST_F(Heap, KeepsFreeStripsForTheDecayTimeWhereLittleIsUnused) {
  Thread thread(&heaps_);
  Sparse sparse = MakeSparse(&thread, 32, 50);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  EXPECT_EQ(pool_.retain.unused_bytes, kRunBytes);
  hak_heap_tick(&thread.cache);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_heap_tick(&thread.cache);
  EXPECT_GT(hak_os_fake_purged_bytes(), kRunBytes / 2);
  EXPECT_EQ(pool_.retain.unused_bytes, 0u);
  thread.FreeAll(sparse.used);
  thread.Free(sparse.of_current);
}

// Each look walks over all free blocks.
TEST_F(Heap, ATrickleOfFreesIsNoReasonForAnotherLook) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kKind);
  void *of_current = thread.Malloc(kKind);
  const hak_slab *slab = SlabOf(blocks[0]);
  auto free_and_tick = [&](uint32_t n_left) {
    for (; hak_slab_used(slab) > n_left; blocks.pop_back()) thread.Free(blocks.back());
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
    hak_heap_tick(&thread.cache);
  };
  const uint32_t half = slab->n_blocks / 2;
  free_and_tick(half);
  EXPECT_EQ(slab->seen, half);
  free_and_tick(half - 1);
  free_and_tick(half - half / 8);
  EXPECT_EQ(slab->seen, half);
  free_and_tick(half - half / 8 - 1);
  EXPECT_EQ(slab->seen, half - half / 8 - 1);
  free_and_tick(half - half / 8 - 2);
  hak_heap_trim(&thread.cache);
  EXPECT_EQ(slab->seen, half - half / 8 - 2) << "who asks for all gets all";
  thread.FreeAll(blocks);
  thread.Free(of_current);
}

TEST_F(Heap, KeepsStripsThatCannotBePurged) {
  Thread thread(&heaps_);
  Sparse sparse = MakeSparse(&thread, 32, 50);
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, SIZE_MAX);
  thread.Free(sparse.of_current);
  EXPECT_EQ(hak_heap_trim(&thread.cache), 0u);
  EXPECT_EQ(sparse.slab->dirty, hak_kind_strips_all(32));
  hak_os_fake_succeed();
  std::vector<void *> all = thread.MallocMany(32, ClassOf(32).n_blocks - sparse.used.size());
  for (void *p : all) EXPECT_EQ(SlabOf(p), sparse.slab);
  thread.FreeAll(all);
  thread.FreeAll(sparse.used);
}

// Where the system gives huge pages to everybody: of the first runs of a kind most may never be touched.
TEST_F(Heap, AKindThatHasFilledFourRunsRefusesNoHugePages) {
  pool_.retain.backed_bytes = HAK_POOL_SMALL_BYTES;
  Thread thread(&heaps_);
  std::vector<void *> blocks;
  auto refused_by_next_run = [&](uint32_t kind) {
    for (void *p : thread.MallocSlab(kind)) blocks.push_back(p);
    return hak_superslab_descriptor(reinterpret_cast<uintptr_t>(blocks.back()))->refuses_huge_pages;
  };
  // With two runs of each of four kinds a SuperSlab is full.
  for (int run = 0; run < 4; ++run) {
    for (uint32_t kind = kKind; kind < kKind + 4; ++kind) EXPECT_TRUE(refused_by_next_run(kind)) << run;
  }
  EXPECT_FALSE(refused_by_next_run(kKind));
  thread.FreeAll(blocks);
  pool_.retain.backed_bytes -= HAK_POOL_SMALL_BYTES;
}

// Kinds that are not in use any more

// What a heap must free for two looks at its kinds, of which the second finds what was not used since the first: 4 MiB
// each, and the runs that stay, the current one and those with recent blocks.
constexpr size_t kTwoLooksBytes = 11 * 1024 * 1024;

void AllocateAndFree(Thread *thread, uint32_t kind, size_t bytes) {
  thread->FreeAll(thread->MallocMany(kind, bytes / ClassOf(kind).block_bytes));
}

TEST_F(Heap, GivesUpTheCurrentSlabOfAKindThatIsNotInUseAnyMore) {
  for (uint32_t kind : {kKind, uint32_t{HAK_KIND_MID_FIRST}, kMidKind - 1}) {
    SCOPED_TRACE(kind);
    pool_.retain.min_bytes = SIZE_MAX;
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
    std::vector<void *> again = thread.MallocMany(kind, 2);  // the first may be the recent block
    EXPECT_EQ(SlabOf(again[0]), slab);
    EXPECT_EQ(SlabOf(again[1]), slab);
    EXPECT_EQ(slab->state, HAK_SLAB_CURRENT);
    thread.FreeAll(again);
  }
}

TEST_F(Heap, KindsThatAreNotInUseAnyMoreLoseTheirSlabsInAThreadThatGoesOn) {
  Thread thread(&heaps_);
  for (uint32_t kind = HAK_KIND_MID_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
    thread.FreeAll(thread.MallocMany(kind, ClassOf(kind).n_blocks / 2));
  }
  const size_t before = pool_.retain.backed_bytes;
  std::vector<void *> in_use;
  for (int i = 0; i < 4; ++i) {
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
    for (void *p : thread.MallocMany(kKind, ClassOf(kKind).n_blocks)) in_use.push_back(p);
    hak_heap_tick(&thread.cache);
  }
  EXPECT_GT(before, 10 * kRunBytes);
  EXPECT_LE(pool_.retain.backed_bytes, 5 * kRunBytes);
  thread.FreeAll(in_use);
}

TEST_F(Heap, KeepsTheCurrentSlabOfAKindThatTakesMemory) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kKind, 1);
  hak_slab *slab = SlabOf(blocks[0]);
  for (int look = 0; look < 5; ++look) {
    const uint64_t uncarved = slab->uncarved;
    while (slab->uncarved == uncarved) blocks.push_back(thread.Malloc(kKind));
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
    hak_heap_tick(&thread.cache);
    EXPECT_EQ(slab->state, HAK_SLAB_CURRENT) << look;
  }
  thread.FreeAll(blocks);
}

// As a server does whose requests are of changing sizes.
TEST_F(Heap, GivesUpTheCurrentSlabsOfUnusedKindsWhereItTakesMore) {
  pool_.retain.min_bytes = SIZE_MAX;
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kKind);
  void *in_use = blocks.back();
  blocks.pop_back();
  thread.FreeAll(blocks);
  hak_slab *slab = SlabOf(in_use);
  ASSERT_EQ(slab->state, HAK_SLAB_CURRENT);
  std::vector<void *> more = thread.MallocMany(kMidKind, 3 * 1024 * 1024 / ClassOf(kMidKind).block_bytes);
  EXPECT_EQ(slab->state, HAK_SLAB_SPARSE);
  EXPECT_EQ(hak_slab_used(slab), 1u);
  thread.FreeAll(more);
  thread.Free(in_use);
}

// It takes no slab and no strip, but malloc and free come to other blocks.
TEST_F(Heap, KeepsTheCurrentSlabOfAKindThatLivesOnWhatItFrees) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kKind, ClassOf(kKind).n_blocks / 2);
  hak_slab *slab = SlabOf(blocks[0]);
  const uint64_t uncarved = slab->uncarved;
  for (int look = 0; look < 5; ++look) {
    thread.Free(blocks.back());
    blocks.pop_back();
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
    hak_heap_tick(&thread.cache);
    EXPECT_EQ(slab->state, HAK_SLAB_CURRENT) << look;
  }
  EXPECT_EQ(slab->uncarved, uncarved) << "the test is about a kind that carves nothing";
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_heap_tick(&thread.cache);
  EXPECT_NE(slab->state, HAK_SLAB_CURRENT);
  thread.FreeAll(blocks);
}

// Runs that hold pages

// A thread with two spares that hold pages.
void MakeSpares(Thread *thread) {
  std::vector<void *> blocks = thread->MallocMany(kKind, 3 * ClassOf(kKind).n_blocks + 1);
  void *of_current = blocks.back();
  blocks.pop_back();
  thread->FreeAll(blocks);
  thread->Free(of_current);
  ASSERT_EQ(thread->cache.heap->n_spares, 2u);
}

TEST_F(Heap, TheFirstRunOfAKindHoldsNoPagesThatItDoesNotUse) {
  Thread thread(&heaps_);
  MakeSpares(&thread);
  const size_t held = pool_.retain.limit.held_bytes;
  void *p = thread.Malloc(kKind + 1);
  EXPECT_EQ(hak_count_bits(SlabOf(p)->dirty), 1u);
  EXPECT_EQ(pool_.retain.limit.held_bytes, held - kRunBytes + kPageBytes);
  thread.Free(p);
}

TEST_F(Heap, RunsKeepTheirPagesWhereHugePagesAreAlwaysWanted) {
  pool_.thp = HAK_THP_ALWAYS;
  Thread thread(&heaps_);
  void *p = thread.Malloc(kKind);
  for (int i = 0; i < 3; ++i) {
    hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
    hak_heap_tick(&thread.cache);
  }
  EXPECT_EQ(SlabOf(p)->dirty, hak_kind_strips_all(kKind));
  thread.Free(p);
}

TEST_F(Heap, WhatIsNotCarvedOfASlabThatWasSetAsideGoesBackToo) {
  Thread thread(&heaps_);
  MakeSpares(&thread);
  std::vector<void *> blocks = thread.MallocMany(kKind + 1, ClassOf(kKind + 1).n_blocks + 1);
  const hak_slab *slab = SlabOf(blocks.back());
  while (!hak_list_is_empty(thread.cache.at_hand.list[kKind + 1])) blocks.push_back(thread.Malloc(kKind + 1));
  for (size_t i = 0; i < ClassOf(kKind + 1).n_blocks / 2; ++i) {
    thread.Free(blocks[i]);
  }
  blocks.erase(blocks.begin(), blocks.begin() + ClassOf(kKind + 1).n_blocks / 2);
  blocks.push_back(thread.Malloc(kKind + 1));
  ASSERT_EQ(slab->state, HAK_SLAB_PARTLY_CARVED);
  ASSERT_EQ(slab->dirty, hak_kind_strips_all(kKind + 1));
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(slab->state, HAK_SLAB_PARTLY_CARVED);
  EXPECT_EQ(hak_count_bits(slab->dirty & slab->uncarved), 1u);
  thread.FreeAll(blocks);
}

TEST_F(Heap, WhatIsNotCarvedOfARunThatHoldsPagesGoesBackAfterTheDecayTime) {
  for (bool is_visited : {false, true}) {
    SCOPED_TRACE(is_visited);
    Thread thread(&heaps_);
    Thread other(&heaps_);
    MakeSpares(&thread);
    std::vector<void *> blocks = thread.MallocMany(kKind + 1, ClassOf(kKind + 1).n_blocks + 1);
    const hak_slab *slab = SlabOf(blocks.back());
    ASSERT_EQ(slab->dirty, hak_kind_strips_all(kKind + 1)) << "its second run";
    while (!hak_list_is_empty(thread.cache.at_hand.list[kKind + 1])) blocks.push_back(thread.Malloc(kKind + 1));
    for (void *p : blocks) memset(p, 0x5a, ClassOf(kKind + 1).block_bytes);
    for (int i = 0; i < 3; ++i) {
      hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
      if (is_visited) hak_heap_set_tick(&heaps_, &other.cache);
      if (!is_visited) hak_heap_tick(&thread.cache);
    }
    EXPECT_EQ(hak_count_bits(slab->dirty & slab->uncarved), 1u) << "the one that a block in use reaches into";
    for (const void *p : blocks) {
      const auto *bytes = static_cast<const unsigned char *>(p);
      ASSERT_TRUE(
          std::all_of(bytes, bytes + ClassOf(kKind + 1).block_bytes, [](unsigned char c) { return c == 0x5a; }));
    }
    thread.FreeAll(blocks);
  }
}

TEST_F(Heap, KnowsAllOfItsMemoryToBeUnusedWhenNothingSurvivesAPeak) {
  Thread thread(&heaps_);
  std::vector<void *> blocks;
  for (uint32_t kind = HAK_KIND_TINY_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
    for (void *p : thread.MallocMany(kind, 2 * ClassOf(kind).n_blocks + 1)) blocks.push_back(p);
  }
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
  EXPECT_GT(hak_retain_used_bytes(&pool_.retain), size_t{36} * 1024 * 1024) << "enough for several looks";
  thread.FreeAll(blocks);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
  hak_heap_tick(&thread.cache);  // for the recent blocks
  EXPECT_EQ(hak_retain_used_bytes(&pool_.retain), 0u);
  EXPECT_LE(pool_.retain.unused_bytes, HAK_RETAIN_MIN_BYTES + (size_t{1} << hak_kind_run_shift(kMidKind)));
}

}  // namespace

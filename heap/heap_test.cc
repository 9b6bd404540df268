// Heaps, one step at a time: how slabs are cut into blocks, what becomes of a block that is freed, and of a slab that
// fills, sleeps and wakes; misuse, and memory that runs out. A test plays several threads by turns, since every call
// names the cache it works on.
#include "heap/heap.h"
#include "heap/heap_inline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
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
using hak_test::kBytes;
using hak_test::kDrawnOrder;
using hak_test::kKind;
using hak_test::kMidKind;
using hak_test::kRunBytes;
using hak_test::SlabOf;
using hak_test::Thread;

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
  EXPECT_EQ(slab->uncarved, hak_kind_strips_all(kind) & ~7);
  thread.FreeAll(blocks);
}

TEST_F(Heap, CarvesAPageWhereTheLimitHasNoRoomForABatch) {
  const uint32_t kind = 16;
  Start(4096, 40, false);
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocMany(kind, ClassOf(kind).n_blocks);
  pool_.retain.limit.max_bytes = pool_.retain.limit.held_bytes + 4096;
  blocks.push_back(thread.Malloc(kind));
  ASSERT_NE(blocks.back(), nullptr);
  EXPECT_EQ(SlabOf(blocks.back())->uncarved, hak_kind_strips_all(kind) & ~1);
  pool_.retain.limit.max_bytes = HAK_LIMIT_NONE;
  thread.FreeAll(blocks);
}

TEST_F(Heap, UsesASpareWhereTheLimitIsReached) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = thread.MallocSlab(kKind);
  std::vector<void *> more = thread.MallocSlab(kKind);
  void *of_current = thread.Malloc(kKind);
  thread.FreeAll(blocks);
  thread.FreeAll(more);
  ASSERT_NE(thread.cache.heap->n_spares, 0u);
  pool_.retain.limit.max_bytes = pool_.retain.limit.held_bytes;
  void *p = thread.Malloc(kKind + 1);
  EXPECT_NE(p, nullptr);
  pool_.retain.limit.max_bytes = HAK_LIMIT_NONE;
  thread.Free(p);
  thread.Free(of_current);
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
  EXPECT_EQ(RunsUsed(), 2u);
  thread.FreeAll(first);
  thread.FreeAll(second);
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
  EXPECT_EQ(RunsUsed(), 2u);
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
  EXPECT_EQ(blocks.size(), HAK_SUPERSLAB_BYTES / kRunBytes * ClassOf(kKind).n_blocks);
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
  const size_t n_runs = (kCount + ClassOf(1).n_blocks - 1) / ClassOf(1).n_blocks;
  EXPECT_EQ(RunsUsed(), n_runs);
  // Hot: two SuperSlabs at a time.
  EXPECT_LE(pool_.n_superslabs, n_runs * kRunBytes / HAK_SUPERSLAB_BYTES + 2);
  for (size_t i = 0; i < kCount; ++i) *static_cast<size_t *>(blocks[i]) = i;
  for (size_t i = 0; i < kCount; ++i) ASSERT_EQ(*static_cast<size_t *>(blocks[i]), i);
  thread.FreeAll(blocks);
  hak_heap_trim(&thread.cache);
  EXPECT_LE(RunsUsed(), 1u);
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
  const uint32_t kinds[] = {1, 2, 5, 31, 64, 65, 72, 80, 96, HAK_KIND_MID_LAST_CLASS, HAK_KIND_MID_LAST};
  for (int step = 0; step < 60000; ++step) {
    std::unique_ptr<Thread> &thread = threads[random() % threads.size()];
    if (thread == nullptr) thread = std::make_unique<Thread>(&heaps_);
    size_t wanted = step / 10000 % 2 == 0 ? 3000 : 300;
    if (random() % 2000 == 0) {
      thread.reset();
    } else if (random() % 1000 == 0) {
      hak_heap_trim(&thread->cache);
    } else if (blocks.size() < wanted && random() % 4 != 0) {
      uint32_t kind = kinds[std::min(random() % std::size(kinds), random() % std::size(kinds))];
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

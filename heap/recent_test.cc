// Recent blocks: what was freed last outside the current slab, which malloc takes first. Of Mid alone.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "base/compiler.h"
#include "heap/heap.h"
#include "heap/heap_inline.h"
#include "heap/test_heap.h"
#include "platform/os_fake.h"
#include "superslab/pool.h"
#include "superslab/registry.h"

namespace {

using hak_test::kKind;
using hak_test::kMidKind;
using hak_test::SlabOf;
using hak_test::Thread;

class Recent : public hak_test::HeapTest {
 protected:
  void SetUp() override {
    HeapTest::SetUp();
    if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "the hardened library has none";
  }

  // The blocks of a full slab of `kind`, another one of which is current.
  std::vector<void *> Asleep(Thread *thread, uint32_t kind) {
    std::vector<void *> blocks = thread->MallocSlab(kind);
    of_current_.push_back(thread->Malloc(kind));
    EXPECT_NE(SlabOf(of_current_.back()), SlabOf(blocks[0]));
    return blocks;
  }

  std::vector<void *> of_current_;
};

TEST_F(Recent, AreHandedOutBeforeTheCurrentSlabsBlocksTheNewestFirst) {
  for (uint32_t kind : {uint32_t{HAK_KIND_MID_FIRST}, uint32_t{HAK_KIND_MID_FIRST + 8}, kMidKind}) {
    SCOPED_TRACE(kind);
    Thread thread(&heaps_);
    std::vector<void *> blocks = Asleep(&thread, kind);
    for (size_t i = 0; i < 3; ++i) thread.Free(blocks[i]);
    for (size_t i = 3; i-- > 0;) EXPECT_EQ(thread.Malloc(kind), blocks[i]);
    void *next = thread.Malloc(kind);
    EXPECT_EQ(SlabOf(next), SlabOf(of_current_.back()));
    thread.Free(next);
    thread.FreeAll(blocks);
    thread.Free(of_current_.back());
  }
}

TEST_F(Recent, AreUsedBlocksForTheirSlabAndNoMoreThanAFew) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  hak_slab *slab = SlabOf(blocks[0]);
  const uint32_t n_blocks = hak_slab_used(slab);
  for (size_t i = 0; i < HAK_RECENT_MAX; ++i) thread.Free(blocks[i]);
  EXPECT_EQ(hak_slab_used(slab), n_blocks);
  thread.Free(blocks[HAK_RECENT_MAX]);
  EXPECT_EQ(hak_slab_used(slab), n_blocks - 1) << "one more goes to its slab";
  EXPECT_EQ(thread.Malloc(kMidKind), blocks[HAK_RECENT_MAX - 1]);
  for (size_t i = HAK_RECENT_MAX - 1; i < blocks.size(); ++i) {
    if (i != HAK_RECENT_MAX) thread.Free(blocks[i]);
  }
  thread.FreeAll(of_current_);
}

TEST_F(Recent, AreOfMidAlone) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kKind);
  const uint32_t n_blocks = hak_slab_used(SlabOf(blocks[0]));
  thread.Free(blocks[0]);
  EXPECT_EQ(hak_slab_used(SlabOf(blocks[0])), n_blocks - 1);
  blocks.erase(blocks.begin());
  thread.FreeAll(blocks);
  thread.FreeAll(of_current_);
}

TEST_F(Recent, AreTheHeapsOwn) {
  Thread thread(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  void *p = blocks[0];
  size_t kind;
  uintptr_t distance;
  uint64_t index;
  ASSERT_FALSE(hak_cache_push(&other.cache, blocks[1], &kind, &distance, &index));
  EXPECT_TRUE(hak_heap_free_run_fast(&other.cache, blocks[1], kind, distance, index));
  EXPECT_EQ(hak_recent_newest(&other.cache, kind), 0) << "it is the first thread's";
  ASSERT_FALSE(hak_cache_push(&thread.cache, p, &kind, &distance, &index));
  EXPECT_FALSE(hak_heap_free_run_fast(&thread.cache, p, kind, distance | 8, index)) << "no block lies there";
  EXPECT_TRUE(hak_heap_free_run_fast(&thread.cache, p, kind, distance, index));
  EXPECT_FALSE(hak_heap_free_run_fast(&thread.cache, p, kind, distance, index)) << "it was freed just before";
  EXPECT_EQ(thread.Malloc(kMidKind), p);
  blocks.erase(blocks.begin() + 1);
  thread.FreeAll(blocks);
  thread.FreeAll(of_current_);
}

// Each way gives back to its slab the last block in use, so that the slab is empty.
TEST_F(Recent, ReturnToTheirSlabsWithATickATrimAndTheEndOfTheThread) {
  void (*const ways[])(Thread *) = {
      [](Thread *thread) {
        hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
        hak_heap_tick(&thread->cache);
      },
      [](Thread *thread) { hak_heap_trim(&thread->cache); },
      [](Thread *thread) { hak_heap_detach(&thread->cache); },
  };
  for (auto way : ways) {
    Thread thread(&heaps_);
    std::vector<void *> blocks = Asleep(&thread, kMidKind);
    thread.Free(of_current_.back());
    hak_slab *slab = SlabOf(blocks[0]);
    for (size_t i = 0; i < blocks.size(); ++i) thread.Free(blocks[(i + 1) % blocks.size()]);
    EXPECT_EQ(hak_slab_used(slab), HAK_RECENT_MAX);
    way(&thread);
    EXPECT_EQ(thread.cache.recent[kMidKind - HAK_KIND_MID_FIRST], 0u);
    hak_heap_set_trim(&heaps_, nullptr);
    EXPECT_EQ(hak_registry_find(blocks[0]), 0u) << "the slab is the pool's";
  }
}

TEST_F(Recent, AreNoneAfterThatUntilTheKindIsAskedForAgain) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  hak_slab *slab = SlabOf(blocks[0]);
  const uint32_t n_blocks = hak_slab_used(slab);
  thread.Free(blocks[0]);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS / 2);
  hak_heap_tick(&thread.cache);
  thread.Free(blocks[1]);
  EXPECT_EQ(hak_slab_used(slab), n_blocks - 2);
  std::vector<void *> others = thread.MallocSlab(kMidKind);  // more than one slab has left
  ASSERT_NE(thread.cache.heap->bin[kMidKind].current, slab);
  thread.Free(blocks[2]);
  EXPECT_EQ(thread.Malloc(kMidKind), blocks[2]);
  thread.FreeAll({blocks.begin() + 2, blocks.end()});
  thread.FreeAll(others);
  thread.FreeAll(of_current_);
}

using RecentDeathTest = Recent;

TEST_F(RecentDeathTest, ADoubleFreeOfTheNewestIsFound) {
  Thread thread(&heaps_);
  std::vector<void *> blocks = Asleep(&thread, kMidKind);
  thread.Free(blocks[0]);
  EXPECT_DEATH(thread.Free(blocks[0]), "double free");
  thread.FreeAll({blocks.begin() + 1, blocks.end()});
  EXPECT_DEATH(thread.Free(blocks[HAK_RECENT_MAX - 1]), "double free") << "also when no other fits";
  thread.FreeAll(of_current_);
}

}  // namespace

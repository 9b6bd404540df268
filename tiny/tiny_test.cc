#include "tiny/tiny.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <set>
#include <vector>

#include "heap/test_heap.h"
#include "tiny/tiny_inline.h"

namespace {

const hak_test::BlockTier kTiny = {
    1,
    HAK_TINY_SIZE_MAX,
    HAK_KIND_TINY_FIRST,
    HAK_KIND_TINY_LAST,
    hak_tiny_kind,
    hak_tiny_block_bytes,
    hak_tiny_block_bytes,
    hak_tiny_malloc,
    hak_tiny_malloc_aligned,
    hak_tiny_free,
};

class Tiny : public hak_test::BlockTierTest {
 protected:
  Tiny() : BlockTierTest(kTiny) {}
};

TEST_F(Tiny, KindsAndSizesAgree) { ExpectConsistentKinds(); }

TEST_F(Tiny, ALargerClassServesASizeForWhichThereIsNoRun) {
  ExpectALargerClassServesWhereThereIsNoRun(hak_tiny_malloc_any);
}

TEST_F(Tiny, KindsOfSizesThatAreNotTinysAreNotTinys) {
  EXPECT_EQ(hak_tiny_kind(0), 0u);
  EXPECT_GT(hak_tiny_kind(HAK_TINY_SIZE_MAX + 1), static_cast<size_t>(HAK_KIND_TINY_LAST));
  EXPECT_GT(hak_tiny_kind(SIZE_MAX / 2), static_cast<size_t>(HAK_KIND_TINY_LAST));
  for (size_t distance = 0; distance < 15; ++distance) EXPECT_EQ(hak_tiny_kind(SIZE_MAX - distance), 0u);
}

TEST_F(Tiny, ABlockIsAtMost15BytesLargerThanAskedFor) {
  for (size_t size = 1; size <= HAK_TINY_SIZE_MAX; ++size) {
    void *p = Malloc(size);
    EXPECT_GE(UsableBytes(p), size);
    EXPECT_LE(UsableBytes(p), size + 15);
    Free(p);
  }
}

TEST_F(Tiny, SizeZeroGivesABlockOfItsOwnEachTime) {
  std::set<void *> blocks;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(blocks.insert(Malloc(i % 2)).second);
  EXPECT_EQ(blocks.count(nullptr), 0u);
  for (void *p : blocks) Free(p);
}

TEST_F(Tiny, BlocksAreAlignedAsTheirSizeAllowsAndFillTheirSlabs) { ExpectAlignedBlocksThatFillTheirRuns(0.98); }

TEST_F(Tiny, EverySizeIsServedAtEveryAlignmentOfTheTier) {
  std::vector<void *> blocks;
  for (size_t alignment = 16; alignment <= HAK_TINY_SIZE_MAX; alignment *= 2) {
    for (size_t size = 0; size <= HAK_TINY_SIZE_MAX; ++size) {
      blocks.push_back(MallocAligned(size, alignment));
      ASSERT_NE(blocks.back(), nullptr);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(blocks.back()) % alignment, 0u) << size;
      ASSERT_GE(UsableBytes(blocks.back()), size);
      ASSERT_LT(UsableBytes(blocks.back()), std::max<size_t>(size, 1) + alignment);
    }
  }
  for (void *p : blocks) Free(p);
}

TEST_F(Tiny, BlocksNeverOverlapAndKeepTheirContent) {
  for (unsigned seed = 1; seed <= 3; ++seed) ExpectBlocksThatNeverOverlap(seed);
}

TEST_F(Tiny, AnswersNullWithoutMemoryAndServesAfterwards) { ExpectAnswersNullWithoutMemoryAndServesAfterwards(); }

TEST_F(Tiny, AnotherThreadMayFree) { ExpectAnotherThreadMayFree(); }

class TinyOnADiet : public Tiny {
 protected:
  void SetUp() override {
    Start(4096, HAK_REFILL_COUNT_DEFAULT, true);
    ASSERT_TRUE(hak_heap_attach(&heaps_, &cache_));
  }
};

TEST_F(TinyOnADiet, SizesOfWhichThereAreFewShareSlabs) {
  std::vector<void *> blocks;
  std::set<uintptr_t> slabs;
  for (size_t size = HAK_TINY_SIZE_MAX; size != 0; --size) {
    if (size % 4 != 0) continue;
    void *p = Malloc(size);
    EXPECT_GE(UsableBytes(p), size);
    EXPECT_LE(UsableBytes(p), std::max(size + 63, size + 127 * (size > 512)));
    slabs.insert(reinterpret_cast<uintptr_t>(p) / HAK_SLAB_BYTES);
    blocks.push_back(p);
  }
  EXPECT_LE(slabs.size(), 12u) << "of 64 kinds";
  for (void *p : blocks) Free(p);
}

TEST_F(TinyOnADiet, ASizeOfWhichThereAreManyHasSlabsOfItsOwn) {
  std::vector<void *> blocks;
  for (int i = 0; i < 100; ++i) blocks.push_back(Malloc(80));
  EXPECT_EQ(UsableBytes(blocks.front()), 128u);
  EXPECT_EQ(UsableBytes(blocks.back()), 80u);
  for (void *p : blocks) Free(p);
}

TEST_F(TinyOnADiet, AlignedBlocksAreNotBorrowed) {
  std::vector<void *> blocks;
  for (size_t kind = 1; kind <= HAK_KIND_TINY_LAST; ++kind) blocks.push_back(Malloc(16 * kind));
  for (size_t alignment = 16; alignment <= HAK_TINY_SIZE_MAX; alignment *= 2) {
    blocks.push_back(MallocAligned(1, alignment));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks.back()) % alignment, 0u) << alignment;
  }
  for (void *p : blocks) Free(p);
}

TEST_F(TinyOnADiet, BlocksNeverOverlapAndKeepTheirContent) { ExpectBlocksThatNeverOverlap(4); }

TEST_F(Tiny, APointerOfNoTierStops) {
  int on_stack = 0;
  EXPECT_EXIT(Free(&on_stack), ::testing::KilledBySignal(SIGABRT),
              "FATAL: free\\(0x[0-9a-f]+\\): pointer was not allocated by hakmem");
}

}  // namespace

#include "mid/mid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <set>
#include <vector>

#include "heap/test_heap.h"

namespace {

// The largest size that the class `kind` serves.
size_t ClassSize(size_t kind) {
  const size_t index = kind - HAK_KIND_MID_FIRST;
  return (9 + index % 8) << (7 + index / 8);
}

const hak_test::BlockTier kMid = {
    HAK_MID_SIZE_MIN, HAK_MID_SIZE_MAX,    HAK_KIND_MID_FIRST, HAK_KIND_MID_LAST_CLASS, hak_mid_kind,
    ClassSize,        hak_mid_block_bytes, hak_mid_malloc,     hak_mid_malloc_aligned,  hak_mid_free,
};

class Mid : public hak_test::BlockTierTest {
 protected:
  Mid() : BlockTierTest(kMid) {}
};

TEST_F(Mid, KindsAndSizesAgree) { ExpectConsistentKinds(); }

TEST_F(Mid, AClassIsLessThanAnEighthLargerThanAskedForAndItsColourLessThanA60th) {
  for (size_t size = HAK_MID_SIZE_MIN; size <= HAK_MID_SIZE_MAX; ++size) {
    size_t kind = hak_mid_kind(size);
    ASSERT_GE(ClassSize(kind), size);
    ASSERT_LT(ClassSize(kind) - size, size / 8.0);
    ASSERT_GE(hak_mid_block_bytes(kind), ClassSize(kind));
    ASSERT_LT(hak_mid_block_bytes(kind) - ClassSize(kind), size / 60.0);
  }
}

// Of the 64 sets of 64 bytes that a way of most first-level caches has.
TEST_F(Mid, TheBlocksOfAClassBeginInManySetsOfACache) {
  for (size_t kind = HAK_KIND_MID_FIRST; kind <= HAK_KIND_MID_LAST_CLASS; ++kind) {
    const size_t size = ClassSize(kind);
    std::vector<void *> blocks;
    std::set<uintptr_t> sets;
    for (int i = 0; i < 31; ++i) {
      blocks.push_back(Malloc(size));
      sets.insert(reinterpret_cast<uintptr_t>(blocks.back()) / 64 % 64);
    }
    EXPECT_GE(sets.size(), size % 1024 != 0 ? 8u : size >= 4096 ? 24u : 2u) << size;
    for (void *p : blocks) Free(p);
  }
}

TEST_F(Mid, StandsInForTinyOutOfItsSmallestClass) {
  for (size_t size = 0; size < HAK_MID_SIZE_MIN; ++size) {
    void *p = Malloc(size);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(KindOf(p), static_cast<size_t>(HAK_KIND_MID_FIRST));
    Free(p);
  }
}

TEST_F(Mid, BlocksAreAlignedAsTheirSizeAllowsAndFillTheirRuns) { ExpectAlignedBlocksThatFillTheirRuns(0.93); }

TEST_F(Mid, EveryBlockIsAlignedTo64Bytes) {
  for (size_t kind = HAK_KIND_MID_FIRST; kind <= HAK_KIND_MID_LAST_CLASS; ++kind) {
    void *p = Malloc(ClassSize(kind));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % HAK_MID_ALIGNMENT, 0u) << kind;
    Free(p);
  }
}

TEST_F(Mid, ServesEveryAlignmentTo16KiBWhereAClassIsLargeEnough) {
  std::vector<void *> blocks;
  for (size_t alignment = 16; alignment <= 16384; alignment *= 2) {
    for (size_t size = 0; size <= HAK_MID_SIZE_MAX; size += 97) {
      void *p = MallocAligned(size, alignment);
      ASSERT_NE(p, nullptr) << size << " at " << alignment;
      ASSERT_EQ(reinterpret_cast<uintptr_t>(p) % alignment, 0u);
      ASSERT_GE(UsableBytes(p), size);
      blocks.push_back(p);
    }
  }
  for (void *p : blocks) Free(p);
}

TEST_F(Mid, AnAlignedRequestGetsAnAlignedBlockNoLongerThanItsSizeRoundedUp) {
  for (size_t alignment = 16; alignment <= 32768; alignment *= 2) {
    for (size_t size = 0; size <= HAK_MID_SIZE_MAX; ++size) {
      SCOPED_TRACE(testing::Message() << size << " at " << alignment);
      const size_t least = std::max(size, HAK_MID_SIZE_MIN);
      size_t rounded = hak_round_up(least, alignment);
      if (rounded > 8192) rounded = hak_round_up(least, 2 * alignment);  // blocks of longer runs are aligned to half
      const size_t kind = hak_mid_kind_aligned(size, alignment);
      if (rounded > HAK_MID_SIZE_MAX) {
        ASSERT_GT(kind, size_t{HAK_KIND_MID_LAST});
        continue;
      }
      ASSERT_LE(kind, size_t{HAK_KIND_MID_LAST});
      const size_t bytes = hak_mid_block_bytes(kind);
      ASSERT_GE(bytes, size);
      ASSERT_GE(hak_class_alignment(static_cast<uint32_t>(kind), static_cast<uint32_t>(bytes)), alignment);
      const size_t class_kind = hak_mid_kind(rounded);
      if (alignment <= HAK_MID_ALIGNMENT) {
        ASSERT_EQ(kind, class_kind);
      } else {
        ASSERT_EQ(bytes, ClassSize(class_kind));
      }
    }
  }
}

TEST_F(Mid, BlocksForAlignmentsFillTheirRuns) {
  for (size_t kind = HAK_KIND_MID_LAST_CLASS + 1; kind <= HAK_KIND_MID_LAST; ++kind) {
    const size_t alignment = size_t{2} * HAK_MID_ALIGNMENT;
    ExpectAlignedBlocksThatFillTheirRun(kind, 0.93, [&](size_t bytes) { return MallocAligned(bytes, alignment); });
  }
}

TEST_F(Mid, NoBlockIsShorterThanAskedForWhenMemoryHasRunOut) {
  std::vector<void *> blocks;
  for (size_t size = 4096; size <= HAK_MID_SIZE_MAX; size += 1024) {
    for (int i = 0; i < 20; ++i) blocks.push_back(MallocAligned(size, 128));
  }
  for (void *p : blocks) Free(p);
  blocks.clear();
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
  for (size_t size = HAK_MID_SIZE_MAX; size >= HAK_MID_SIZE_MIN; size -= 100) {
    void *p = hak_mid_malloc_any(&cache_, size);
    if (p == nullptr) continue;
    EXPECT_GE(UsableBytes(p), size);
    blocks.push_back(p);
  }
  hak_os_fake_succeed();
  for (void *p : blocks) Free(p);
}

TEST_F(Mid, ALargerClassServesASizeForWhichThereIsNoRun) {
  ExpectALargerClassServesWhereThereIsNoRun(hak_mid_malloc_any);
}

TEST_F(Mid, RefusesWhatNoClassOffers) {
  EXPECT_EQ(MallocAligned(100, 32768), nullptr);
  EXPECT_EQ(MallocAligned(100, size_t{1} << 63), nullptr);
  EXPECT_EQ(MallocAligned(HAK_MID_SIZE_MAX + 1, 16), nullptr);
  EXPECT_EQ(MallocAligned(SIZE_MAX, 16), nullptr);
}

TEST_F(Mid, BlocksNeverOverlapAndKeepTheirContent) {
  for (unsigned seed = 1; seed <= 3; ++seed) ExpectBlocksThatNeverOverlap(seed);
}

TEST_F(Mid, AnswersNullWithoutMemoryAndServesAfterwards) { ExpectAnswersNullWithoutMemoryAndServesAfterwards(); }

TEST_F(Mid, AnotherThreadMayFree) { ExpectAnotherThreadMayFree(); }

TEST_F(Mid, APointerOfNoTierStops) {
  int on_stack = 0;
  EXPECT_EXIT(Free(&on_stack), ::testing::KilledBySignal(SIGABRT),
              "FATAL: free\\(0x[0-9a-f]+\\): pointer was not allocated by hakmem");
}

}  // namespace

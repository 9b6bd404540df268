#include "mid/mid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <vector>

#include "heap/test_heap.h"

namespace {

const hak_test::BlockTier kMid = {
    HAK_MID_SIZE_MIN,    HAK_MID_SIZE_MAX, HAK_KIND_MID_FIRST,     HAK_KIND_MID_LAST, hak_mid_kind,
    hak_mid_block_bytes, hak_mid_malloc,   hak_mid_malloc_aligned, hak_mid_free,
};

class Mid : public hak_test::BlockTierTest {
 protected:
  Mid() : BlockTierTest(kMid) {}
};

TEST_F(Mid, KindsAndSizesAgree) { ExpectConsistentKinds(); }

TEST_F(Mid, ABlockIsLessThanAnEighthLargerThanAskedFor) {
  for (size_t size = HAK_MID_SIZE_MIN; size <= HAK_MID_SIZE_MAX; ++size) {
    size_t bytes = hak_mid_block_bytes(hak_mid_kind(size));
    ASSERT_GE(bytes, size);
    ASSERT_LT(bytes - size, size / 8.0);
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

TEST_F(Mid, EveryBlockIsAlignedTo128Bytes) {
  for (size_t kind = HAK_KIND_MID_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
    void *p = Malloc(hak_mid_block_bytes(kind));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 128, 0u) << kind;
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

TEST_F(Mid, AnAlignedRequestGetsTheSmallestKindThatHasTheAlignment) {
  for (size_t alignment = 16; alignment <= 32768; alignment *= 2) {
    for (size_t size = 0; size <= HAK_MID_SIZE_MAX; ++size) {
      size_t kind = hak_mid_kind(std::max(size, HAK_MID_SIZE_MIN));
      auto alignment_of = [](size_t of) {
        return hak_class_alignment(static_cast<uint32_t>(of), static_cast<uint32_t>(hak_mid_block_bytes(of)));
      };
      while (kind <= HAK_KIND_MID_LAST && alignment_of(kind) < alignment) ++kind;
      ASSERT_EQ(std::min(hak_mid_kind_aligned(size, alignment), size_t{HAK_KIND_MID_LAST + 1}), kind)
          << size << " at " << alignment;
    }
  }
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

// The bitmap arithmetic against a brute-force search.
#include "superslab/superslab.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

namespace {

uint32_t BruteForceMask(size_t first, size_t n_slabs) {
  uint32_t mask = 0;
  for (size_t i = first; i < first + n_slabs; ++i) mask |= uint32_t{1} << i;
  return mask;
}

uint32_t BruteForceRuns(uint32_t free_map, size_t n_slabs) {
  uint32_t runs = 0;
  for (size_t first = 0; first < 32; first += n_slabs) {
    uint32_t mask = BruteForceMask(first, n_slabs);
    if ((free_map & mask) == mask) runs |= uint32_t{1} << first;
  }
  return runs;
}

TEST(SuperslabRuns, AreTheAlignedFreeRunsOfAnyBitmap) {
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    // Of all densities, since long runs are rare in evenly random bits.
    uint32_t free_map = static_cast<uint32_t>(random());
    for (int denser = i % 6; denser > 0; --denser) free_map |= static_cast<uint32_t>(random());
    for (size_t n_slabs = 1; n_slabs <= 32; n_slabs *= 2) {
      ASSERT_EQ(hak_superslab_runs(free_map, n_slabs), BruteForceRuns(free_map, n_slabs))
          << "map 0x" << std::hex << free_map << ", run length 0x" << n_slabs;
    }
  }
}

TEST(SuperslabRuns, AreEverywhereInAFreeMapAndNowhereInAFullOne) {
  for (size_t n_slabs = 1; n_slabs <= 32; n_slabs *= 2) {
    EXPECT_EQ(hak_superslab_runs(HAK_SUPERSLAB_ALL_FREE, n_slabs), BruteForceRuns(HAK_SUPERSLAB_ALL_FREE, n_slabs));
    EXPECT_EQ(hak_superslab_runs(0, n_slabs), 0u);
  }
}

TEST(SuperslabMask, CoversTheRunAndNothingElse) {
  for (size_t first = 0; first < 32; ++first) {
    for (size_t n_slabs = 1; first + n_slabs <= 32; ++n_slabs) {
      EXPECT_EQ(hak_superslab_mask(first, n_slabs), BruteForceMask(first, n_slabs)) << first << " + " << n_slabs;
    }
  }
}

}  // namespace

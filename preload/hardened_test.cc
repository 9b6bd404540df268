// What libhakmem-hardened.so promises beside the misuse that it finds (testing/misuse): sizes to the byte, delayed
// reuse, an order of blocks that cannot be foretold, wiped memory. The library that this process runs on is the
// hardened one.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::Opaque;

constexpr size_t kKiB = 1024;

// One size of each tier that is sealed.
const std::vector<size_t> kSealedSizes = {1, 50, 56, 1000, 5 * kKiB, 32 * kKiB, 100 * kKiB};

bool Wipes() {
  const char *value = getenv("HAKMEM_WIPE");
  return value != nullptr && strcmp(value, "1") == 0;
}

TEST(Hardened, UsableSizeIsWhatWasAskedFor) {
  for (size_t size : kSealedSizes) {
    void *p = Opaque(malloc(size));
    EXPECT_EQ(malloc_usable_size(p), size);
    p = Opaque(realloc(p, size + 1));
    EXPECT_EQ(malloc_usable_size(p), size + 1);
    free(p);
    p = Opaque(aligned_alloc(256, size));
    EXPECT_EQ(malloc_usable_size(p), size);
    free(p);
  }
}

TEST(Hardened, ABlockIsNotUsedAgainWithinSixtyFourFrees) {
  for (size_t size : {size_t{24}, size_t{1000}, 3 * kKiB}) {
    std::vector<void *> freed;
    freed.reserve(2000);  // which frees nothing between
    for (size_t i = 0; i < 2000; ++i) {
      void *p = Opaque(malloc(size));
      auto recent = freed.size() > 64 ? freed.end() - 64 : freed.begin();
      ASSERT_EQ(std::find(recent, freed.end(), p), freed.end()) << size << " " << i;
      free(p);
      freed.push_back(p);
    }
    std::set<void *> distinct(freed.begin(), freed.end());
    EXPECT_LT(distinct.size(), 1000u) << "memory is used again, though later";
  }
}

TEST(Hardened, FreshBlocksComeInNoOrder) {
  std::vector<char *> blocks;
  for (size_t i = 0; i < 1000; ++i) blocks.push_back(Opaque(static_cast<char *>(malloc(72))));
  size_t n_up = 0;
  for (size_t i = 1; i < blocks.size(); ++i) n_up += blocks[i - 1] < blocks[i];
  EXPECT_GT(n_up, 250u);
  EXPECT_LT(n_up, 750u);
  for (char *p : blocks) free(p);
}

// The first bytes of a block of Tiny or Mid become a link once it is in a list; while it is delayed they do not.
TEST(Hardened, FreedMemoryIsWipedOnRequest) {
  for (size_t size : {size_t{50}, size_t{1000}, 3 * kKiB, 100 * kKiB}) {
    auto *p = Opaque(static_cast<unsigned char *>(malloc(size)));
    memset(p, 'A', size);
    free(p);
    p = Opaque(p);
    size_t n_left = static_cast<size_t>(std::count(p, p + size, 'A'));
    EXPECT_EQ(n_left, Wipes() ? 0u : size) << size;
  }
}

TEST(Hardened, BlocksForSizesTo4KiBAreDelayed) {
  if (Wipes()) GTEST_SKIP() << "the first bytes tell nothing then";
  for (size_t size = 3 * kKiB; size <= 4 * kKiB - 8; size += 8) {
    auto *p = Opaque(static_cast<uint64_t *>(malloc(size)));
    p[0] = size;
    free(p);
    EXPECT_EQ(*Opaque(p), size);
  }
}

TEST(Hardened, WhatReallocCutsOffIsWipedOnRequest) {
  auto *p = Opaque(static_cast<unsigned char *>(malloc(100)));
  memset(p, 'A', 100);
  auto *shrunk = Opaque(static_cast<unsigned char *>(realloc(p, 60)));
  ASSERT_EQ(shrunk, p);
  EXPECT_EQ(std::count(p, p + 60, 'A'), 60);
  // The canary lies on the first 16 of the 40.
  EXPECT_EQ(p[99], Wipes() ? 0 : 'A');
  free(shrunk);
}

TEST(Hardened, WhatAThreadKeepsBackGoesWithIt) {
  size_t before = 0;
  for (int round = 0; round < 500; ++round) {
    std::thread([] {
      for (size_t i = 0; i < 400; ++i) free(Opaque(malloc(3 * kKiB)));
    }).join();
    if (round == 50) before = mallinfo2().uordblks;
  }
  EXPECT_LE(mallinfo2().uordblks, before + 2 * kKiB * kKiB);
}

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

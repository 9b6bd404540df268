// HAKMEM_THP: which memory the kernel says it has given in huge pages.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "platform/os.h"
#include "router/hakmem.h"
#include "router/rollup.h"

namespace {

constexpr size_t kMiB = 1024 * 1024;

size_t InHugePages() { return hak_test::RollupBytes("AnonHugePages:"); }

bool KernelHasHugePages() {
  const hak_os *os = hak_os_linux();
  void *p = hak_os_map_aligned(os, nullptr, 2 * kMiB, 2 * kMiB);
  const size_t before = InHugePages();
  const bool has = os->populate(p, 2 * kMiB, true) && InHugePages() == before + 2 * kMiB;
  os->unmap(p, 2 * kMiB);
  return has;
}

// The time that the SuperSlabs of 64 MiB take to get memory, the longest of them.
uint64_t LongestPopulateNs(bool huge) {
  const hak_os *os = hak_os_linux();
  char *p = static_cast<char *>(hak_os_map_aligned(os, nullptr, 64 * kMiB, 2 * kMiB));
  uint64_t longest = 0;
  for (size_t i = 0; i < 64 * kMiB; i += 2 * kMiB) {
    const uint64_t start = os->thread_ns();
    os->populate(p + i, 2 * kMiB, huge);
    longest = std::max(longest, os->thread_ns() - start);
  }
  os->unmap(p, 64 * kMiB);
  return longest;
}

class HugePages : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!KernelHasHugePages()) GTEST_SKIP() << "the kernel gives none";
    WereAlwaysCheap();
    hak_trim(0);
    before_ = InHugePages();
  }
  void TearDown() override {
    for (void *p : blocks_) hak_free(p);
    hak_set("HAKMEM_THP", "auto");
  }

  void Grow(size_t bytes, size_t size) {
    for (; bytes >= size; bytes -= size) blocks_.push_back(memset(hak_malloc(size), 1, size));
  }
  size_t Gained() { return InHugePages() - before_; }

  // Where one was dear, the pool does without for a while. They are least so where others were just given back.
  static bool WereAlwaysCheap() {
    static bool were_cheap = true;
    LongestPopulateNs(true);
    were_cheap = were_cheap && LongestPopulateNs(true) < LongestPopulateNs(false);
    return were_cheap;
  }
  void ExpectGained(size_t bytes) {
    const size_t gained = Gained();
    if (gained < bytes && !WereAlwaysCheap()) GTEST_SKIP() << "huge pages are dear";
    EXPECT_GE(gained, bytes);
  }

  std::vector<void *> blocks_;
  size_t before_ = 0;
};

TEST_F(HugePages, AreNotForASmallProcess) {
  Grow(12 * kMiB, 100);
  EXPECT_EQ(Gained(), 0u);
}

// In any case once, and so before the other tests that grow.
TEST_F(HugePages, AreTriedBeyondThat) {
  Grow(24 * kMiB, 100);
  EXPECT_GE(Gained(), 2 * kMiB);
}

TEST_F(HugePages, AreMostOfWhatAProcessGrowsByBeyondThat) {
  Grow(64 * kMiB, 100);
  ExpectGained(40 * kMiB);
}

TEST_F(HugePages, AreForMidToo) {
  Grow(64 * kMiB, 5000);
  ExpectGained(30 * kMiB);
}

// A program need not touch what it asks for there.
TEST_F(HugePages, AreNotForAceNorHuge) {
  Grow(16 * kMiB, 100 * 1024);
  Grow(16 * kMiB, 4 * kMiB);
  EXPECT_EQ(Gained(), 0u);
}

TEST_F(HugePages, AreRefusedWhenSwitchedOff) {
  ASSERT_EQ(hak_set("HAKMEM_THP", "never"), 0);
  Grow(64 * kMiB, 100);
  EXPECT_EQ(Gained(), 0u);
}

TEST_F(HugePages, AreForAllWhenAlwaysWanted) {
  ASSERT_EQ(hak_set("HAKMEM_THP", "always"), 0);
  Grow(2 * kMiB, 100);
  Grow(8 * kMiB, 8 * kMiB);
  EXPECT_GE(Gained(), 8 * kMiB);
}

}  // namespace

// HAKMEM_THP: which memory the kernel says it has given in huge pages.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <vector>

#include "platform/os.h"
#include "router/hakmem.h"
#include "router/rollup.h"

// In place of libc's: without the time that threads take, huge pages are never found to be dear, whatever else the
// machine does (//superslab:populate_test is about that).
extern "C" int clock_gettime(clockid_t clock, timespec *time) noexcept {
  if (clock == CLOCK_THREAD_CPUTIME_ID) {
    errno = EINVAL;
    return -1;
  }
  return static_cast<int>(syscall(SYS_clock_gettime, clock, time));
}

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

class HugePages : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!KernelHasHugePages()) GTEST_SKIP() << "the kernel gives none";
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

  std::vector<void *> blocks_;
  size_t before_ = 0;
};

TEST_F(HugePages, AreNotForASmallProcess) {
  Grow(12 * kMiB, 100);
  EXPECT_EQ(Gained(), 0u);
}

TEST_F(HugePages, AreMostOfWhatAProcessGrowsByBeyondThat) {
  Grow(64 * kMiB, 100);
  EXPECT_GE(Gained(), 40 * kMiB);
}

TEST_F(HugePages, AreForMidToo) {
  Grow(64 * kMiB, 5000);
  EXPECT_GE(Gained(), 30 * kMiB);
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

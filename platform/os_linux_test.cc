// What the kernel is asked to do that the fake operating system's tests do not see.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>

#include "platform/os.h"

namespace {

constexpr size_t kMiB = 1024 * 1024;

const hak_os *os = hak_os_linux();

bool IsMapped(const void *page) {
  return msync(const_cast<void *>(page), os->page_bytes, MS_ASYNC) == 0 || errno != ENOMEM;
}

TEST(OsLinux, AMovedMappingIsWhereItWasAskedForAndNowhereElse) {
  // Low in the address space, where a mapping could grow to half of it.
  char *start = static_cast<char *>(os->map(reinterpret_cast<void *>(uint64_t{1} << 40), kMiB));
  char *target = static_cast<char *>(os->map(nullptr, 2 * kMiB));
  ASSERT_NE(start, nullptr);
  ASSERT_NE(target, nullptr);
  bool was_followed = IsMapped(start + kMiB);
  EXPECT_EQ(os->remap(start, kMiB, 2 * kMiB, target), target);
  target[2 * kMiB - 1] = 1;
  EXPECT_FALSE(IsMapped(start));
  EXPECT_EQ(IsMapped(start + kMiB), was_followed);
  EXPECT_TRUE(os->unmap(target, 2 * kMiB));
}

TEST(OsLinux, AMappingThatCannotBeMovedKeepsItsContentAndErrnoItsValue) {
  char *start = static_cast<char *>(os->map(nullptr, kMiB));
  char *target = static_cast<char *>(os->map(nullptr, 2 * kMiB));
  ASSERT_NE(start, nullptr);
  ASSERT_NE(target, nullptr);
  start[kMiB - 1] = 42;
  rlimit unlimited;
  ASSERT_EQ(getrlimit(RLIMIT_AS, &unlimited), 0);
  rlimit nothing = unlimited;
  nothing.rlim_cur = os->page_bytes;
  errno = EDOM;
  ASSERT_EQ(setrlimit(RLIMIT_AS, &nothing), 0);
  void *moved = os->remap(start, kMiB, 2 * kMiB, target);
  int error = errno;
  ASSERT_EQ(setrlimit(RLIMIT_AS, &unlimited), 0);
  EXPECT_EQ(moved, nullptr);
  EXPECT_EQ(error, EDOM);
  EXPECT_EQ(start[kMiB - 1], 42);
  EXPECT_TRUE(os->unmap(start, kMiB));
  EXPECT_TRUE(os->unmap(target, 2 * kMiB));
}

// From here on the kernel refuses the process getrandom; false if such filters are not to be had.
bool RefuseRandom() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {4, program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Ends the process: with 0 if all is well, 77 if there is no filter.
void DrawWithoutGetrandom() {
  if (!RefuseRandom()) exit(77);
  uint64_t bits;
  if (getrandom(&bits, sizeof bits, 0) != -1) exit(1);
  errno = EDOM;
  const uint64_t first = hak_os_random();
  const uint64_t second = hak_os_random();
  exit(errno == EDOM && first != second && first >> 32 != 0 && second >> 32 != 0 ? 0 : 2);
}

TEST(OsLinux, RandomBitsAreToBeHadWhereTheKernelRefusesThem) {
  EXPECT_EXIT(
      DrawWithoutGetrandom(), [](int status) { return status == 0 || WEXITSTATUS(status) == 77; }, "");
}

// Pages that are resident, of a range of at most 2 MiB.
size_t Resident(char *start, size_t bytes) {
  unsigned char resident[512];
  EXPECT_EQ(mincore(start, bytes, resident), 0);
  size_t n = 0;
  for (size_t i = 0; i < bytes / os->page_bytes; ++i) n += resident[i] & 1;
  return n;
}

TEST(OsLinux, PopulatedPagesAreResidentAndKeepTheirContent) {
  for (bool huge : {false, true}) {
    char *start = static_cast<char *>(hak_os_map_aligned(os, nullptr, 2 * kMiB, 2 * kMiB));
    ASSERT_NE(start, nullptr);
    start[kMiB] = 42;
    EXPECT_EQ(Resident(start, 2 * kMiB), 1u);
    errno = EDOM;
    EXPECT_TRUE(os->populate(start, 2 * kMiB, huge));
    EXPECT_EQ(errno, EDOM);
    EXPECT_EQ(Resident(start, 2 * kMiB), 2 * kMiB / os->page_bytes);
    EXPECT_EQ(start[kMiB], 42);
    EXPECT_EQ(start[0], 0);
    // No mark stays on the mapping, so whole pages can go as ever.
    EXPECT_TRUE(os->purge(start + kMiB, kMiB));
    EXPECT_EQ(Resident(start, 2 * kMiB), kMiB / os->page_bytes);
    EXPECT_TRUE(os->unmap(start, 2 * kMiB));
  }
}

TEST(OsLinux, WhatWasWrittenToIsResidentUntilItIsPurged) {
  const size_t bytes = 4 * kMiB;  // more pages than one question is about
  char *start = static_cast<char *>(os->map(nullptr, bytes));
  ASSERT_NE(start, nullptr);
  os->huge_pages(start, bytes, false);
  EXPECT_EQ(os->resident_bytes(start, bytes), 0u);
  for (size_t offset : {size_t{0}, kMiB, bytes - 1}) start[offset] = 1;
  EXPECT_EQ(os->resident_bytes(start, bytes), 3 * os->page_bytes);
  EXPECT_EQ(os->resident_bytes(start + os->page_bytes, bytes - os->page_bytes), 2 * os->page_bytes);
  EXPECT_TRUE(os->purge(start, kMiB));
  EXPECT_EQ(os->resident_bytes(start, bytes), 2 * os->page_bytes);
  EXPECT_TRUE(os->unmap(start, bytes));
  errno = EDOM;
  EXPECT_EQ(os->resident_bytes(start, bytes), bytes) << "the kernel does not say";
  EXPECT_EQ(errno, EDOM);
}

TEST(OsLinux, WhatIsNotMappedCannotBePopulated) {
  char *start = static_cast<char *>(hak_os_map_aligned(os, nullptr, 2 * kMiB, 2 * kMiB));
  ASSERT_NE(start, nullptr);
  EXPECT_TRUE(os->unmap(start + kMiB, kMiB));
  EXPECT_FALSE(os->populate(start, 2 * kMiB, true));
  EXPECT_TRUE(os->unmap(start, kMiB));
}

uint64_t MonotonicNs() {
  timespec now;
  EXPECT_EQ(clock_gettime(CLOCK_MONOTONIC, &now), 0);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

// In the kernel too, but not while it waits. Both bounds hold however busy the machine is.
TEST(OsLinux, AThreadsTimeIsWhatItWorks) {
  errno = EDOM;
  const uint64_t before = MonotonicNs();
  uint64_t start = os->thread_ns();
  timespec pause = {.tv_sec = 0, .tv_nsec = 50000000};
  EXPECT_EQ(nanosleep(&pause, nullptr), 0);
  uint64_t waited = os->thread_ns();
  const uint64_t after = MonotonicNs();
  EXPECT_GE(waited, start);
  // The other half of the pause is for clocks that differ.
  EXPECT_LE(waited - start, after - before - 25000000) << "50 ms of it waiting";
  char *p = static_cast<char *>(os->map(nullptr, 4 * kMiB));
  ASSERT_NE(p, nullptr);
  EXPECT_TRUE(os->populate(p, 4 * kMiB, false));
  EXPECT_GT(os->thread_ns() - waited, 10000u) << "1,024 pages in 10 us";
  EXPECT_TRUE(os->unmap(p, 4 * kMiB));
  EXPECT_EQ(errno, EDOM);
}

}  // namespace

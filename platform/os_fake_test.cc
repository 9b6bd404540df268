#include "platform/os_fake.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "platform/os.h"

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMiB = 1024 * 1024;

class OsTest : public ::testing::Test {
 protected:
  void SetUp() override { hak_os_fake_reset(kPage); }
  void TearDown() override { hak_os_fake_succeed(); }
  const hak_os *os_ = hak_os_fake();
};

TEST_F(OsTest, CallsAreCountedByKindAndInTotal) {
  void *p = os_->map(nullptr, kPage);
  os_->purge(p, kPage);
  os_->unmap(p, kPage);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_MAP), 1u);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_PURGE), 1u);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_UNMAP), 1u);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_REMAP), 0u);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_ANY), 3u);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), 0u);
  EXPECT_EQ(hak_os_fake_purged_bytes(), kPage);
}

TEST_F(OsTest, ExactlyTheCallsAskedForFail) {
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 2, 1);
  void *first = os_->map(nullptr, kPage);
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(os_->map(nullptr, kPage), nullptr);
  void *third = os_->map(nullptr, kPage);
  EXPECT_NE(third, nullptr);
  hak_os_fake_fail(HAK_OS_FAKE_ANY, 1, SIZE_MAX);
  EXPECT_FALSE(os_->unmap(first, kPage));
  EXPECT_FALSE(os_->purge(first, kPage));
  EXPECT_EQ(os_->remap(first, kPage, 2 * kPage, nullptr), nullptr);
  hak_os_fake_succeed();
  EXPECT_EQ(hak_os_fake_mapped_bytes(), 2 * kPage);
  EXPECT_TRUE(os_->unmap(first, kPage));
  EXPECT_TRUE(os_->unmap(third, kPage));
}

TEST_F(OsTest, WhatExceedsTheLimitIsRefusedAndIsNotCounted) {
  hak_os_fake_limit(3 * kPage);
  void *p = os_->map(nullptr, 2 * kPage);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(os_->map(nullptr, 2 * kPage), nullptr);
  EXPECT_EQ(os_->map(nullptr, SIZE_MAX & ~(kPage - 1)), nullptr);
  EXPECT_EQ(os_->remap(p, 2 * kPage, 4 * kPage, nullptr), nullptr);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), 2 * kPage);
  void *q = os_->map(nullptr, kPage);
  ASSERT_NE(q, nullptr);
  EXPECT_TRUE(os_->unmap(q, kPage));
  hak_os_fake_succeed();
  q = os_->map(nullptr, 2 * kPage);
  ASSERT_NE(q, nullptr);
  EXPECT_TRUE(os_->unmap(q, 2 * kPage));
  EXPECT_TRUE(os_->unmap(p, 2 * kPage));
}

TEST_F(OsTest, TheClockStandsUntilTheTestAdvancesIt) {
  EXPECT_EQ(os_->now_ms(), 0u);
  hak_os_fake_advance_ms(5);
  EXPECT_EQ(os_->now_ms(), 5u);
}

TEST_F(OsTest, PopulatesTakeAsLongAsTheTestSays) {
  void *p = os_->map(nullptr, kPage);
  EXPECT_TRUE(os_->populate(p, kPage, false));
  EXPECT_EQ(os_->thread_ns(), 0u);
  hak_os_fake_populate_takes(false, 3);
  hak_os_fake_populate_takes(true, 70);
  EXPECT_TRUE(os_->populate(p, kPage, false));
  EXPECT_EQ(os_->thread_ns(), 3u);
  EXPECT_TRUE(os_->populate(p, kPage, true));
  EXPECT_EQ(os_->thread_ns(), 73u);
  EXPECT_TRUE(os_->unmap(p, kPage));
}

TEST_F(OsTest, MappingsAreAlignedToThePageSizeOfChoice) {
  hak_os_fake_reset(64 * 1024);
  void *mappings[20];
  for (void *&p : mappings) {
    p = os_->map(nullptr, 64 * 1024);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % (64 * 1024), 0u);
  }
  for (void *p : mappings) EXPECT_TRUE(os_->unmap(p, 64 * 1024));
}

TEST(OsFakeDeathTest, ARangeThatIsNotWholePagesStopsTheTest) {
  hak_os_fake_reset(16 * 1024);
  EXPECT_DEATH(hak_os_fake()->map(nullptr, kPage), "is not whole pages of 16384 bytes");
}

TEST_F(OsTest, AlignedMappingsAreAlignedAndLeakNothing) {
  for (size_t alignment = kPage; alignment <= 64 * kMiB; alignment *= 2) {
    void *p = hak_os_map_aligned(os_, nullptr, 3 * kPage, alignment);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % alignment, 0u);
    EXPECT_EQ(hak_os_fake_mapped_bytes(), 3 * kPage);
    ASSERT_TRUE(os_->unmap(p, 3 * kPage));
  }
}

TEST_F(OsTest, AnAlignedMappingOfNearlyAllAddressSpaceIsRefused) {
  EXPECT_EQ(hak_os_map_aligned(os_, nullptr, SIZE_MAX / 2 & ~(kPage - 1), size_t{1} << 62), nullptr);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), 0u);
}

TEST_F(OsTest, PurgedPagesAreZero) {
  char *p = static_cast<char *>(os_->map(nullptr, 4 * kPage));
  std::memset(p, 1, 4 * kPage);
  ASSERT_TRUE(os_->purge(p + kPage, 2 * kPage));
  EXPECT_EQ(p[0], 1);
  EXPECT_EQ(p[kPage], 0);
  EXPECT_EQ(p[3 * kPage - 1], 0);
  EXPECT_EQ(p[3 * kPage], 1);
  os_->unmap(p, 4 * kPage);
}

TEST_F(OsTest, LockedPagesAreNotPurgedAndKeepTheirContent) {
  char *p = static_cast<char *>(os_->map(nullptr, kPage));
  p[0] = 1;
  // Not mlock: the sanitizers make that do nothing.
  if (syscall(SYS_mlock, p, kPage) != 0) GTEST_SKIP() << "no page may be locked here";
  EXPECT_FALSE(os_->purge(p, kPage));
  EXPECT_EQ(p[0], 1);
  os_->unmap(p, kPage);
}

TEST_F(OsTest, RemappingOntoATargetMovesTheContent) {
  char *p = static_cast<char *>(os_->map(nullptr, kMiB));
  char *target = static_cast<char *>(os_->map(nullptr, 2 * kMiB));
  p[kMiB - 1] = 7;
  ASSERT_EQ(os_->remap(p, kMiB, 2 * kMiB, target), target);
  EXPECT_EQ(target[kMiB - 1], 7);
  EXPECT_EQ(target[2 * kMiB - 1], 0);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), 2 * kMiB);
  os_->unmap(target, 2 * kMiB);
}

TEST_F(OsTest, ARefusedRemappingChangesNothing) {
  char *p = static_cast<char *>(os_->map(nullptr, kMiB));
  char *target = static_cast<char *>(os_->map(nullptr, 2 * kMiB));
  p[0] = 7;
  // A hole in the source: the kernel cannot move it, but has unmapped the target when it finds out.
  ASSERT_EQ(munmap(p + kPage, kPage), 0);
  EXPECT_EQ(os_->remap(p, kMiB, 2 * kMiB, target), nullptr);
  EXPECT_EQ(p[0], 7);
  target[2 * kMiB - 1] = 1;
  EXPECT_TRUE(os_->unmap(target, 2 * kMiB));
  os_->unmap(p, kMiB);
}

}  // namespace

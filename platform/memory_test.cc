#include "platform/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

// A tree of the files that are read, as a kernel would show them.
class Memory : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(root_); }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string &path, const std::string &content) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << content;
  }

  size_t Bytes() { return hak_memory_bytes(root_.c_str()); }

  static size_t MachineBytes() {
    return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  }

  std::string root_ = testing::TempDir() + "/memory_test";
};

constexpr size_t kMiB = 1024 * 1024;

TEST_F(Memory, WithoutControlGroupsIsTheMachines) { EXPECT_EQ(Bytes(), MachineBytes()); }

TEST_F(Memory, IsTheLimitOfTheProcesssOwnGroup) {
  Write("/proc/self/cgroup", "0::/user.slice/job\n");
  Write("/sys/fs/cgroup/user.slice/job/memory.max", "67108864\n");
  EXPECT_EQ(Bytes(), 64 * kMiB);
}

TEST_F(Memory, IsTheLimitOfAGroupAboveIfThatIsLower) {
  Write("/proc/self/cgroup", "0::/user.slice/job/part\n");
  Write("/sys/fs/cgroup/user.slice/job/part/memory.max", "max\n");
  Write("/sys/fs/cgroup/user.slice/job/memory.max", "67108864\n");
  Write("/sys/fs/cgroup/user.slice/memory.max", "33554432\n");
  EXPECT_EQ(Bytes(), 32 * kMiB);
}

TEST_F(Memory, IsTheLimitOfTheNamespacesRoot) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "33554432\n");
  EXPECT_EQ(Bytes(), 32 * kMiB);
}

TEST_F(Memory, LooksNowhereElseForAGroupOutsideOfTheNamespace) {
  Write("/proc/self/cgroup", "0::/../other\n");
  Write("/sys/fs/cgroup/memory.max", "33554432\n");
  Write("/sys/fs/other/memory.max", "1048576\n");
  EXPECT_EQ(Bytes(), 32 * kMiB);
}

TEST_F(Memory, KnowsVersionOne) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/a\n4:hugetlb,memory:/docker/job\n0::/docker/job\n");
  Write("/sys/fs/cgroup/memory/docker/job/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "16777216\n");
  EXPECT_EQ(Bytes(), 16 * kMiB);
}

TEST_F(Memory, KnowsVersionOneInAContainerThatDoesNotSeeItsGroup) {
  Write("/proc/self/cgroup", "4:memory:/docker/job\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "16777216\n");
  EXPECT_EQ(Bytes(), 16 * kMiB);
}

TEST_F(Memory, IsNotMisledByOtherControllersAndBrokenFiles) {
  Write("/proc/self/cgroup", "5:memory_other:/a\nnonsense\n7:\n:memory:\n0:");
  Write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1048576\n");
  Write("/sys/fs/cgroup/a/memory.max", "1048576\n");
  EXPECT_EQ(Bytes(), MachineBytes());
  Write("/proc/self/cgroup", "0::/a\n");
  for (const char *content : {"", "\n", "max\n", "x1\n", "99999999999999999999999999\n"}) {
    Write("/sys/fs/cgroup/a/memory.max", content);
    EXPECT_EQ(Bytes(), MachineBytes()) << content;
  }
}

TEST_F(Memory, SurvivesAGroupWhosePathIsTooLong) {
  Write("/proc/self/cgroup", "0::/" + std::string(10000, 'a') + "\n");
  EXPECT_EQ(Bytes(), MachineBytes());
}

TEST(MemoryHere, IsNoMoreThanTheMachineHasAndNoTrifle) {
  errno = 7;
  size_t bytes = hak_memory_bytes("");
  EXPECT_EQ(errno, 7);
  EXPECT_GE(bytes, kMiB);
  EXPECT_LE(bytes, static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)));
}

}  // namespace

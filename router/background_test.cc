// The background thread, in a process with HAKMEM_BACKGROUND_PURGE=1 and a decay time of 20 ms (BUILD.bazel).
#include <dirent.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "router/hakmem.h"
#include "router/test_router.h"

namespace {

using hak_test::ExpectInChild;
using hak_test::kMiB;

// libc takes each thread's from its stack.
thread_local char much_thread_local_data[512 * 1024];

int CountThreads() {
  int n = 0;
  DIR *tasks = opendir("/proc/self/task");
  while (const dirent *entry = readdir(tasks)) n += entry->d_name[0] != '.';
  closedir(tasks);
  return n;
}

size_t SuperslabBytes() {
  hak_stats stats;
  hak_stats_read(&stats);
  return stats.superslab_bytes;
}

// Waits; false after half a minute, which is a hang.
bool Becomes(const std::function<bool()> &condition) {
  for (int i = 0; i < 3000; ++i) {
    if (condition()) return true;
    usleep(10000);
  }
  return false;
}

// Allocates `bytes` in blocks of 1000 bytes, and frees all but each 100th, which are returned.
std::vector<void *> PeakOf(size_t bytes) {
  std::vector<void *> blocks;
  for (size_t i = 0; i < bytes / 1000; ++i) blocks.push_back(hak_malloc(1000));
  std::vector<void *> left;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i % 100 == 0) {
      left.push_back(blocks[i]);
    } else {
      hak_free(blocks[i]);
    }
  }
  return left;
}

void FreeAll(const std::vector<void *> &blocks) {
  for (void *p : blocks) hak_free(p);
}

void Work() {
  for (int i = 0; i < 100; ++i) hak_free(hak_malloc(3 * kMiB));
}

// Whether the thread comes; it is started by who allocates.
bool ComesBeside(int n_before) {
  return Becomes([&] {
    Work();
    return CountThreads() == n_before + 1;
  });
}

// Also by the main thread, which then does nothing: it is the background thread that gives back.
void ExpectAThreadThatComesAndGoes() {
  much_thread_local_data[0] = 1;
  const int n_before = CountThreads();
  FreeAll(PeakOf(4 * kMiB));
  EXPECT_EQ(CountThreads(), n_before) << "a small process needs none";
  std::vector<void *> left = PeakOf(64 * kMiB);
  EXPECT_TRUE(ComesBeside(n_before));
  FreeAll(left);
  EXPECT_TRUE(Becomes([] { return SuperslabBytes() < 16 * kMiB; })) << SuperslabBytes();
  EXPECT_TRUE(Becomes([&] { return CountThreads() == n_before; }));
}

TEST(Background, ComesWithMemoryToWatchAndGoesWhenItWasGivenBack) {
  ExpectAThreadThatComesAndGoes();
  ExpectAThreadThatComesAndGoes();
}

TEST(Background, GoesAndComesAsTheOptionSays) {
  const int n_before = CountThreads();
  // Enough for it to stay.
  std::vector<void *> left = PeakOf(64 * kMiB);
  EXPECT_TRUE(ComesBeside(n_before));
  EXPECT_EQ(hak_set("HAKMEM_BACKGROUND_PURGE", "0"), 0);
  EXPECT_TRUE(Becomes([&] { return CountThreads() == n_before; }));
  Work();
  EXPECT_EQ(CountThreads(), n_before);
  EXPECT_EQ(hak_set("HAKMEM_BACKGROUND_PURGE", "1"), 0);
  EXPECT_EQ(CountThreads(), n_before + 1) << "the program may do nothing from now on";
  FreeAll(left);
  EXPECT_TRUE(Becomes([&] { return CountThreads() == n_before; }));
}

TEST(Background, EndsAsTheOptionSaysHoweverLongItRests) {
  const int n_before = CountThreads();
  std::vector<void *> left = PeakOf(64 * kMiB);
  EXPECT_TRUE(ComesBeside(n_before));
  EXPECT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", "3600000"), 0);
  usleep(100000);  // it begins to rest for half an hour
  EXPECT_EQ(hak_set("HAKMEM_BACKGROUND_PURGE", "0"), 0);
  EXPECT_TRUE(Becomes([&] { return CountThreads() == n_before; }));
  EXPECT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", "20"), 0);
  EXPECT_EQ(hak_set("HAKMEM_BACKGROUND_PURGE", "1"), 0);
  FreeAll(left);
}

// libc frees with locks held that it takes to start a thread. In a child of a fork, where none runs yet.
TEST(Background, IsNotStartedByFree) {
  std::vector<void *> left = PeakOf(64 * kMiB);
  std::vector<void *> large;
  for (int i = 0; i < 300; ++i) large.push_back(hak_malloc(3 * kMiB));
  ExpectInChild([&] {
    for (void *p : large) {
      hak_free(p);
      usleep(1000);
    }
    return CountThreads() == 1 && ComesBeside(1);
  });
  FreeAll(large);
  FreeAll(left);
}

// It shares all memory with its parent, but not its threads.
TEST(Background, AChildOfAVforkStartsNone) {
  EXPECT_EQ(hak_set("HAKMEM_BACKGROUND_PURGE", "0"), 0);
  EXPECT_TRUE(Becomes([] { return CountThreads() == 1; }));
  std::vector<void *> left = PeakOf(64 * kMiB);
  pid_t child = vfork();
  if (child == 0) _exit(hak_set("HAKMEM_BACKGROUND_PURGE", "1"));
  EXPECT_TRUE(ComesBeside(1));
  FreeAll(left);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Background, AChildOfAForkGetsItsOwn) {
  std::vector<void *> left = PeakOf(64 * kMiB);
  ExpectInChild([&] {
    FreeAll(left);
    FreeAll(PeakOf(64 * kMiB));
    return Becomes([] { return SuperslabBytes() < 16 * kMiB; });
  });
  FreeAll(left);
}

// In less time than is between two ticks. In a child of a fork, where none runs yet.
TEST(Background, ComesWithAPeakThatIsFollowedByNothing) {
  ExpectInChild([] {
    for (int i = 0; i < 12; ++i) hak_malloc(2 * kMiB - 4096);  // too few calls for a tick
    return Becomes([] { return CountThreads() == 2; });
  });
}

// One block at a time, which the next malloc takes out of the cache.
TEST(Background, GivesBackTheLastBlockOfHuge) {
  ExpectInChild([] {
    auto huge_cached = [] {
      hak_stats stats;
      hak_stats_read(&stats);
      return stats.huge_cached_bytes;
    };
    hak_trim(0);
    const bool came = Becomes([] {
      for (int i = 0; i < 100; ++i) hak_free(hak_malloc(40 * kMiB));
      return CountThreads() == 2;
    });
    return came && Becomes([&] { return huge_cached() == 0; });
  });
}

TEST(Background, AProgramWhoseThreadsHaveAllEndedEnds) {
  pid_t child = fork();
  if (child == 0) {
    static std::vector<void *> left = PeakOf(64 * kMiB);
    Becomes([] {
      for (int i = 0; i < 100; ++i) hak_free(hak_malloc(3 * kMiB));
      return CountThreads() == 2;
    });
    syscall(SYS_exit, 0);  // of the main thread alone: pthread_exit would unwind through GoogleTest
  }
  int status = -1;
  const bool ended = Becomes([&] { return waitpid(child, &status, WNOHANG) == child; });
  EXPECT_TRUE(ended);
  EXPECT_EQ(status, 0);
  if (!ended) kill(child, SIGKILL);
}

}  // namespace

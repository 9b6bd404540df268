// "fork at any moment in a program whose other threads allocate: the child allocates, frees, starts threads, forks
// again, execs; vfork, posix_spawn, clone as libc uses them."
//
// The variable FORKS says how often (300 times unless it is set).
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "preload/test_process.h"

namespace {

constexpr size_t kSizes[] = {16, 100, 1000, 5000, 32000, 100000, 1000000, 3000000};

// A child that is not done by then hangs.
constexpr unsigned kChildSeconds = 60;

unsigned ForksFromEnvironment() {
  const char *text = getenv("FORKS");
  return text == nullptr ? 300 : static_cast<unsigned>(strtoul(text, nullptr, 10));
}

// Blocks on their way from one thread to any other. Whoever takes one out owns it, in the child as well.
std::atomic<char *> passed_on[64];

char *Allocate(size_t size) {
  char *p = static_cast<char *>(malloc(size));
  if (p == nullptr) abort();
  p[0] = p[size - 1] = static_cast<char>(size);
  return p;
}

// Allocates and frees `n` blocks; half of those it frees are another thread's.
void Work(unsigned seed, unsigned n) {
  std::minstd_rand random(seed);
  for (unsigned i = 0; i < n; ++i) {
    const size_t size = kSizes[random() % std::size(kSizes)];
    char *p = Allocate(size);
    if (random() % 2 == 0) p = passed_on[random() % std::size(passed_on)].exchange(p);
    if (random() % 8 == 0) p = static_cast<char *>(realloc(p, 1 + random() % 100000));
    free(p);
  }
}

// Threads that allocate and free as long as the object lives.
class Load {
 public:
  explicit Load(unsigned n_threads) {
    for (unsigned i = 0; i < n_threads; ++i) {
      threads_.emplace_back([this, i] {
        for (unsigned round = 0; !stop_; ++round) {
          Work(i * 1000 + round, 50);
          // Threads that begin and end take locks that others do not.
          std::thread(Work, round, 5).join();
        }
      });
    }
  }

  ~Load() {
    stop_ = true;
    for (std::thread &thread : threads_) thread.join();
    for (auto &slot : passed_on) free(slot.exchange(nullptr));
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// "" if the child ended with status 0.
std::string Wait(pid_t child) {
  int status = 0;
  if (child < 0) return "there is no child";
  if (waitpid(child, &status, 0) != child) return "waitpid";
  if (WIFSIGNALED(status)) {
    return WTERMSIG(status) == SIGALRM ? "hangs" : "signal " + std::to_string(WTERMSIG(status));
  }
  return WEXITSTATUS(status) == 0 ? "" : "status " + std::to_string(WEXITSTATUS(status));
}

// What the child does: everything that the promise names. Does not return.
[[noreturn]] void LiveAsChild(unsigned seed) {
  alarm(kChildSeconds);
  Work(seed, 300);
  for (auto &slot : passed_on) free(slot.exchange(nullptr));
  std::thread first(Work, seed + 1, 200);
  std::thread second(Work, seed + 2, 200);
  first.join();
  second.join();
  pid_t grandchild = fork();
  if (grandchild == 0) {
    alarm(kChildSeconds);
    Work(seed + 3, 100);
    std::thread(Work, seed + 4, 100).join();
    _exit(0);
  }
  if (!Wait(grandchild).empty()) _exit(1);
  if (seed % 4 == 0) {
    execl("/bin/true", "true", static_cast<char *>(nullptr));
    _exit(2);
  }
  _exit(0);
}

TEST(Fork, AtAnyMomentTheChildAllocatesFreesStartsThreadsForksAgainAndExecs) {
  const unsigned n_forks = ForksFromEnvironment();
  Load load(2);
  for (unsigned i = 0; i < n_forks; ++i) {
    Work(i, 20);
    pid_t child = fork();
    if (child == 0) LiveAsChild(i);
    ASSERT_EQ(Wait(child), "") << "fork " << i;
  }
}

TEST(Fork, ByAThreadThatHasNotAllocatedYet) {
  Load load(2);
  for (unsigned i = 0; i < 50; ++i) {
    std::string outcome;
    std::thread([&] {
      pid_t child = fork();
      if (child == 0) LiveAsChild(i);
      outcome = Wait(child);
    }).join();
    ASSERT_EQ(outcome, "") << "fork " << i;
  }
}

// Where it interrupts malloc, the locks are its own thread's.
TEST(Fork, BySignalHandlersOfAProgramOfOneThread) {
  hak_test::Outcome outcome =
      hak_test::Run({"/usr/bin/timeout", "50", hak_test::DataFile("testing/conformance/signal_forks")});
  EXPECT_EQ(outcome.out, "ok\n") << outcome.err;
  EXPECT_EQ(outcome.exit_status, 0) << "124 is a hang";
}

TEST(Fork, ByTwoThreadsAtOnce) {
  Load load(2);
  auto fork_often = [](unsigned seed, std::string *outcome) {
    for (unsigned i = 0; i < 100 && outcome->empty(); ++i) {
      pid_t child = fork();
      if (child == 0) LiveAsChild(seed + i);
      *outcome = Wait(child);
    }
  };
  std::string outcomes[2];
  std::thread other(fork_often, 1000, &outcomes[0]);
  fork_often(2000, &outcomes[1]);
  other.join();
  EXPECT_EQ(outcomes[0], "");
  EXPECT_EQ(outcomes[1], "");
}

TEST(Fork, ChildrenOfChildrenOverAHundredGenerations) {
  Load load(2);
  pid_t child = fork();
  if (child == 0) {
    for (unsigned generation = 0; generation < 100; ++generation) {
      alarm(kChildSeconds);
      std::thread other(Work, generation, 100);
      Work(generation + 1, 50);
      pid_t next = fork();
      // The thread exists in the older process alone.
      if (next != 0) {
        other.join();
        _exit(Wait(next).empty() ? 0 : 1);
      }
      other.detach();
    }
    _exit(0);
  }
  EXPECT_EQ(Wait(child), "");
}

TEST(Fork, VforkedChildrenExecAndTheParentGoesOn) {
  Load load(2);
  for (unsigned i = 0; i < 200; ++i) {
    Work(i, 20);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    pid_t child = vfork();
#pragma GCC diagnostic pop
    if (child == 0) {
      execl("/bin/true", "true", static_cast<char *>(nullptr));
      _exit(2);
    }
    ASSERT_EQ(Wait(child), "") << "vfork " << i;
  }
}

TEST(Fork, PosixSpawnSystemAndPopenWork) {
  Load load(2);
  for (unsigned i = 0; i < 100; ++i) {
    Work(i, 20);
    char name[] = "true";
    char *argv[] = {name, nullptr};
    pid_t child = -1;
    ASSERT_EQ(posix_spawn(&child, "/bin/true", nullptr, nullptr, argv, environ), 0);
    ASSERT_EQ(Wait(child), "") << "posix_spawn " << i;
  }
  for (unsigned i = 0; i < 20; ++i) {
    ASSERT_EQ(system("exit 7"), 7 << 8);
    FILE *stream = popen("echo text", "r");
    ASSERT_NE(stream, nullptr);
    char line[16] = "";
    EXPECT_NE(fgets(line, sizeof line, stream), nullptr);
    EXPECT_STREQ(line, "text\n");
    EXPECT_EQ(pclose(stream), 0);
  }
}

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

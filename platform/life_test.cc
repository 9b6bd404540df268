#include "platform/life.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <thread>

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitizersNeedTheEnd = true;
#else
constexpr bool kSanitizersNeedTheEnd = false;
#endif

// Waits for what the kernel does when a thread was joined.
bool IsOverSoon(hak_life life) {
  for (int i = 0; i < 10000 && !hak_life_is_over(life); ++i) usleep(100);
  return hak_life_is_over(life);
}

TEST(Life, OfTheCallingThreadIsNotOver) {
  errno = 7;
  EXPECT_FALSE(hak_life_is_over(hak_life_own()));
  const hak_life life = hak_life_own();
  std::thread([&] { EXPECT_FALSE(hak_life_is_over(life)); }).join();
  EXPECT_EQ(errno, 7);
}

TEST(Life, IsOverWhenTheThreadHasEnded) {
  hak_life life;
  std::thread([&] { life = hak_life_own(); }).join();
  errno = 7;
  EXPECT_TRUE(IsOverSoon(life));
  EXPECT_EQ(errno, 7);
}

TEST(Life, IsOverWhenTheThreadHasEndedWithoutAWord) {
  if (kSanitizersNeedTheEnd) GTEST_SKIP() << "the sanitizer keeps account of each thread's end";
  hak_life life;
  auto run = [](void *own) -> void * {
    *static_cast<hak_life *>(own) = hak_life_own();
    syscall(SYS_exit, 0);
    return nullptr;
  };
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, nullptr, run, &life), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  EXPECT_TRUE(IsOverSoon(life));
}

// Without a handler that would tell it so, its own thread has the parent's life.
TEST(Life, OfTheParentIsNotOverInAChild) {
  hak_life ended;
  const hak_life own = hak_life_own();
  std::thread([&] { ended = hak_life_own(); }).join();
  pid_t child = fork();
  if (child == 0) _exit(hak_life_is_over(own) || hak_life_is_over(ended) || hak_life_is_over(hak_life_own()) ? 1 : 0);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Readable, IsWhatIsMappedAndMayBeRead) {
  const auto page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void *pages = mmap(nullptr, 3 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  char *middle = static_cast<char *>(pages) + page_bytes;
  char *last = middle + page_bytes;
  errno = 7;
  EXPECT_TRUE(hak_is_readable(middle, 1));
  EXPECT_TRUE(hak_is_readable(middle + 100, page_bytes));
  EXPECT_EQ(mprotect(last, page_bytes, PROT_NONE), 0);
  EXPECT_FALSE(hak_is_readable(last, 1));
  EXPECT_TRUE(hak_is_readable(last - 1, 1));
  EXPECT_FALSE(hak_is_readable(last - 1, 2));
  EXPECT_EQ(munmap(middle, page_bytes), 0);
  EXPECT_FALSE(hak_is_readable(middle, 1));
  EXPECT_FALSE(hak_is_readable(middle - 1, 2));
  EXPECT_EQ(errno, 7);
  munmap(pages, page_bytes);
  munmap(last, page_bytes);
}

// Asked for, and nothing else is done.
TEST(Readable, LeavesTheThreadsSignalsAsTheyAre) {
  sigset_t before, after;
  const uint64_t all = UINT64_MAX;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  EXPECT_TRUE(hak_is_readable(&all, sizeof all));
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int i = 1; i < NSIG; ++i) EXPECT_EQ(sigismember(&before, i), sigismember(&after, i)) << i;
}

}  // namespace

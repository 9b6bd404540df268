#include "platform/life.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitizersNeedTheEnd = true;
#else
constexpr bool kSanitizersNeedTheEnd = false;
#endif

class Life : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitizersNeedTheEnd) GTEST_SKIP() << "the sanitizer keeps account of each thread's end";
  }
};

// pthread_exit's work is left out: the kernel alone knows of the end.
void RunInThreadThatEndsWithoutAWord(const std::function<void()> &work) {
  pthread_t thread;
  auto run = [](void *argument) -> void * {
    (*static_cast<const std::function<void()> *>(argument))();
    syscall(SYS_exit, 0);
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, nullptr, run, const_cast<std::function<void()> *>(&work)), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
}

// Of a child of a fork, where `answer` is asked.
bool InChild(const std::function<bool()> &answer) {
  pid_t child = fork();
  if (child == 0) _exit(answer() ? 1 : 0);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  return WEXITSTATUS(status) == 1;
}

TEST_F(Life, IsLostOnceWhenItsThreadEndsWithoutEndingIt) {
  hak_life life;
  RunInThreadThatEndsWithoutAWord([&] {
    hak_life_begin(&life);
    EXPECT_FALSE(hak_life_is_lost(&life));
  });
  EXPECT_TRUE(hak_life_is_lost(&life));
  EXPECT_FALSE(hak_life_is_lost(&life));
}

TEST_F(Life, IsNotLostWhileItsThreadLivesNorWhenItWasEnded) {
  hak_life life;
  hak_life_begin(&life);
  std::thread([&] { EXPECT_FALSE(hak_life_is_lost(&life)); }).join();
  hak_life_end(&life);
  std::thread([&] {
    EXPECT_FALSE(hak_life_is_lost(&life));
    hak_life_begin(&life);
    hak_life_end(&life);
  }).join();
  EXPECT_FALSE(hak_life_is_lost(&life));
}

TEST_F(Life, OfAThreadsManyIsLostEach) {
  hak_life lives[3];
  RunInThreadThatEndsWithoutAWord([&] {
    for (hak_life &life : lives) hak_life_begin(&life);
    hak_life_end(&lives[1]);
  });
  EXPECT_TRUE(hak_life_is_lost(&lives[0]));
  EXPECT_FALSE(hak_life_is_lost(&lives[1]));
  EXPECT_TRUE(hak_life_is_lost(&lives[2]));
}

TEST_F(Life, BeginsAnewForTheNextThread) {
  hak_life life;
  for (int i = 0; i < 3; ++i) {
    RunInThreadThatEndsWithoutAWord([&] { hak_life_begin(&life); });
    EXPECT_TRUE(i == 1 || hak_life_is_lost(&life));  // whether or not anybody has asked
  }
  std::thread([&] { hak_life_begin(&life), hak_life_end(&life); }).join();
  EXPECT_FALSE(hak_life_is_lost(&life));
}

// Where other threads exist no more.
TEST_F(Life, IsInAChildWhatItWasAtTheFork) {
  hak_life lost, live, own;
  RunInThreadThatEndsWithoutAWord([&] { hak_life_begin(&lost); });
  hak_life_begin(&own);
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, 2);
  std::thread thread([&] {
    hak_life_begin(&live);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    hak_life_end(&live);
  });
  pthread_barrier_wait(&barrier);
  EXPECT_TRUE(InChild([&] { return hak_life_is_lost(&lost); }));
  EXPECT_FALSE(InChild([&] { return hak_life_is_lost(&live); }));
  EXPECT_TRUE(hak_life_is_lost(&lost)) << "the child's answer is the child's";
  EXPECT_TRUE(InChild([&] {
    hak_life_begin(&own);
    hak_life_end(&own);
    RunInThreadThatEndsWithoutAWord([&] { hak_life_begin(&own); });
    return hak_life_is_lost(&own);
  }));
  pthread_barrier_wait(&barrier);
  thread.join();
  hak_life_end(&own);
  pthread_barrier_destroy(&barrier);
}

}  // namespace

// A fork waits for whoever holds a lock, lock by lock: the child finds what it guards whole, and can use every tier.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "platform/lock.h"
#include "router/hakmem.h"
#include "router/process.h"

namespace {

constexpr size_t kSizes[] = {40, 1000, 5000, 30000, 100000, 1500000, 3000000};

// Takes every lock that there is: heaps come and go, and each tier asks the pool or the system.
void UseEveryTier() {
  std::thread([] {
    for (size_t size : kSizes) {
      char *p = static_cast<char *>(hak_malloc(size));
      if (p == nullptr) abort();
      memset(p, 1, size);
      p = static_cast<char *>(hak_realloc(p, 2 * size));
      hak_free(p);
    }
  }).join();
  std::vector<void *> blocks;
  for (size_t i = 0; i < 100; ++i) blocks.push_back(hak_malloc(kSizes[i % std::size(kSizes)]));
  for (void *p : blocks) hak_free(p);
  hak_trim(0);
}

struct Lock {
  std::string name;
  std::function<hak_mutex *(hak_process *)> find;
};

std::vector<Lock> Locks() {
  std::vector<Lock> locks = {
      {"visits", [](hak_process *process) { return &process->heaps.visit_lock; }},
      {"heap_set", [](hak_process *process) { return &process->heaps.lock; }},
      {"huge", [](hak_process *process) { return &process->huge.lock; }},
      {"pool", [](hak_process *process) { return &process->pool.lock; }},
      {"registry", [](hak_process *) { return &hak_registry_lock; }},
  };
  for (size_t i = 0; i < HAK_ACE_ARENAS; ++i) {
    locks.push_back({"arena" + std::to_string(i), [i](hak_process *process) { return &process->ace.arenas[i].lock; }});
  }
  return locks;
}

class ForkLocks : public testing::TestWithParam<Lock> {};

TEST_P(ForkLocks, AForkWaitsForWhoHoldsItAndTheChildUsesEveryTier) {
  UseEveryTier();
  hak_mutex *lock = GetParam().find(hak_process_get());
  std::atomic<bool> is_held{false};
  std::atomic<bool> was_released{false};
  std::thread holder([&] {
    hak_lock(lock);
    is_held = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    was_released = true;
    hak_unlock(lock);
  });
  while (!is_held) std::this_thread::yield();
  // One that waits for it, and may get it before the fork or after.
  std::thread waiter([&] {
    hak_lock(lock);
    hak_unlock(lock);
  });
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    if (!was_released) _exit(2);
    UseEveryTier();
    _exit(0);
  }
  EXPECT_TRUE(was_released) << "forked while another thread held the lock";
  holder.join();
  waiter.join();
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  UseEveryTier();
}

INSTANTIATE_TEST_SUITE_P(Locks, ForkLocks, testing::ValuesIn(Locks()),
                         [](const testing::TestParamInfo<Lock> &lock) { return lock.param.name; });

}  // namespace

// The allocator in threads that come and go, and in the children of a fork.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "base/atomic.h"
#include "platform/delay.h"
#include "router/hakmem.h"
#include "router/test_router.h"

// In C a function and a struct may share a name.
#include "router/process.h"

namespace {

using hak_test::ExpectInChild;
using hak_test::Fill;
using hak_test::IsFilled;
using hak_test::IsZero;
using hak_test::kMiB;
using hak_test::kSizes;

// Threads

TEST(RouterThreads, BlocksOutliveTheThreadAndAreFreedByAnyOther) {
  std::vector<void *> blocks;
  std::thread([&] {
    for (size_t i = 0; i < 2000; ++i) {
      size_t size = kSizes[i % 14];
      blocks.push_back(hak_malloc(size));
      Fill(blocks.back(), size, i);
    }
  }).join();
  std::thread([&] {
    for (size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_TRUE(IsFilled(blocks[i], kSizes[i % 14], i));
      hak_free(blocks[i]);
    }
  }).join();
}

// The registry must be asked after the thread has its heap: the block's slab may change hands until then.
TEST(RouterThreads, AThreadMayBeginWithAFreeWhileOthersEnd) {
  constexpr int kThreads = 8;
  std::vector<std::vector<void *>> blocks(kThreads, std::vector<void *>(50));
  for (int generation = 0; generation < 300; ++generation) {
    std::vector<std::thread> threads;
    for (auto &own : blocks) {
      threads.emplace_back([&own] {
        for (void *&block : own) {
          hak_free(block);
          block = hak_malloc(200);
          Fill(block, 200, 3);
        }
      });
    }
    for (auto &thread : threads) thread.join();
  }
  for (auto &own : blocks) {
    for (void *block : own) {
      EXPECT_TRUE(IsFilled(block, 200, 3));
      hak_free(block);
    }
  }
}

TEST(RouterThreads, RandomProgramsThatHandBlocksAroundKeepTheirContent) {
  constexpr int kThreads = 4;
  struct Block {
    void *p;
    size_t size, seed;
  };
  const uint64_t n_delays = hak_delay_count();
  std::mutex mutex;
  std::vector<Block> shared;
  std::atomic<int> n_wrong{0};
  auto run = [&](unsigned seed) {
    std::mt19937 random(seed);
    std::vector<Block> own;
    auto check = [&](const Block &block) {
      if (!IsFilled(block.p, std::min<size_t>(block.size, 600), block.seed)) ++n_wrong;
    };
    for (int step = 0; step < 6000; ++step) {
      if (own.size() < 200 && random() % 2 == 0) {
        Block block = {nullptr, 0, random() % 1000};
        block.size = random() % 40 == 0 ? random() % (3 * kMiB) : random() % (random() % 4 == 0 ? 40000 : 600);
        block.p = random() % 3 == 0 ? hak_calloc(1, block.size) : hak_malloc(block.size);
        Fill(block.p, std::min<size_t>(block.size, 600), block.seed);
        own.push_back(block);
      } else if (!own.empty()) {
        std::swap(own[random() % own.size()], own.back());
        Block block = own.back();
        own.pop_back();
        check(block);
        switch (random() % 3) {
          case 0: {
            size_t size = 1 + random() % 50000;
            block.p = hak_realloc(block.p, size);
            block.size = std::min(block.size, size);
            own.push_back(block);
            break;
          }
          case 1: {
            std::lock_guard<std::mutex> lock(mutex);
            shared.push_back(block);
            if (shared.size() < 50) break;
            block = shared[random() % 50];
            std::swap(*std::find_if(shared.begin(), shared.end(), [&](const Block &b) { return b.p == block.p; }),
                      shared.back());
            shared.pop_back();
            check(block);
            hak_free(block.p);
            break;
          }
          default:
            hak_free(block.p);
        }
      }
    }
    for (const Block &block : own) {
      check(block);
      hak_free(block.p);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) threads.emplace_back(run, t + 1);
  for (auto &thread : threads) thread.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_EQ(hak_delay_count() > n_delays, hak_delay_seed() != 0) << "in checked builds threads are delayed";
  for (const Block &block : shared) hak_free(block.p);
}

TEST(RouterThreads, ManyShortThreadsNeedNoMoreHeapsThanLiveAtOnce) {
  std::thread([] { hak_free(hak_malloc(100)); }).join();
  uint32_t n_heaps = hak_process_get()->heaps.n_heaps;
  for (int i = 0; i < 300; ++i) {
    std::thread([] {
      for (size_t size : kSizes) hak_free(hak_malloc(size));
    }).join();
  }
  EXPECT_EQ(hak_process_get()->heaps.n_heaps, n_heaps);
}

// A key whose destructor comes after the allocator's own, sets the key anew until the last round, and allocates and
// frees in each round from `first_round` on.
struct LateUser {
  int round = 0;
  int first_round = 1;
  void *block = nullptr;
};
pthread_key_t late_key;

// ThreadSanitizer takes its own state of the thread away in the last round.
#if defined(__SANITIZE_THREAD__)
constexpr int kRounds = PTHREAD_DESTRUCTOR_ITERATIONS - 1;
#else
constexpr int kRounds = PTHREAD_DESTRUCTOR_ITERATIONS;
#endif

void UseLate(void *argument) {
  auto *user = static_cast<LateUser *>(argument);
  if (++user->round >= user->first_round) {
    hak_free(user->block);
    user->block = hak_malloc(200);
    Fill(user->block, 200, 1);
    void *other = hak_calloc(1, 50000);
    if (!IsZero(other, 50000) || !IsFilled(user->block, 200, 1)) abort();
    // Not for each call anew, where the allocator's destructor comes again.
    if (user->round < PTHREAD_DESTRUCTOR_ITERATIONS - 1 && hak_thread_cache.heap == nullptr) abort();
    hak_free(other);
  }
  if (user->round < kRounds) pthread_setspecific(late_key, user);
}

TEST(RouterThreads, DestructorsThatRunAfterTheAllocatorsOwnAllocateAndFreeAndStrandNoHeap) {
  ASSERT_EQ(pthread_key_create(&late_key, UseLate), 0);
  for (int first_round = 1; first_round <= kRounds; ++first_round) {
    SCOPED_TRACE(first_round);
    uint32_t n_heaps = 0;
    for (int i = 0; i < 50; ++i) {
      LateUser user;
      user.first_round = first_round;
      std::thread([&] {
        user.block = hak_malloc(300);
        pthread_setspecific(late_key, &user);
      }).join();
      EXPECT_EQ(user.round, kRounds);
      EXPECT_TRUE(IsFilled(user.block, 200, 1));
      hak_free(user.block);
      if (i == 0) n_heaps = hak_process_get()->heaps.n_heaps;
    }
    EXPECT_EQ(hak_process_get()->heaps.n_heaps, n_heaps);
  }
  pthread_key_delete(late_key);
}

// libc frees blocks of its own in threads that never allocated, when nobody would take a heap away any more.
TEST(RouterThreads, AThreadThatFreesLittleNeedsNoHeap) {
  hak_free(hak_malloc(100));
  const hak_heap_set &heaps = hak_process_get()->heaps;
  uint32_t n_heaps = heaps.n_heaps, n_threadless = hak_load_relaxed(&heaps.n_threadless);
  std::vector<std::thread> threads;
  for (int i = 0; i < 30; ++i) {
    threads.emplace_back([block = hak_malloc(100), extent = hak_malloc(100000)] {
      hak_free(block);
      hak_free(extent);
    });
  }
  for (auto &thread : threads) thread.join();
  EXPECT_EQ(heaps.n_heaps, n_heaps);
  EXPECT_EQ(hak_load_relaxed(&heaps.n_threadless), n_threadless);
}

// Fork

// Registered before the allocator's own handlers, so that these run while it holds its locks.
bool fork_handlers_allocate;
void AllocateInForkHandler() {
  if (!fork_handlers_allocate) return;
  std::vector<void *> blocks;
  for (size_t size : {100, 5000, 30000, 200000, 3000000}) {
    for (int i = 0; i < 100; ++i) blocks.push_back(hak_malloc(size));
  }
  for (void *block : blocks) hak_free(block);
}
__attribute__((constructor(101))) void RegisterForkHandlers() {
  pthread_atfork(AllocateInForkHandler, AllocateInForkHandler, AllocateInForkHandler);
}

TEST(RouterFork, HandlersOfOtherLibrariesMayAllocate) {
  fork_handlers_allocate = true;
  pid_t child = fork();
  fork_handlers_allocate = false;
  if (child == 0) {
    hak_free(hak_malloc(5000));
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  hak_free(hak_malloc(5000));
}

TEST(RouterFork, AChildAllocatesWhileThreadsOfItsParentWereAllocating) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      std::vector<void *> blocks(64);
      while (!stop.load()) {
        void *&p = blocks[random() % blocks.size()];
        hak_free(p);
        p = hak_malloc(random() % 3 == 0 ? random() % (3 * kMiB) : random() % 50000);
      }
      for (void *p : blocks) hak_free(p);
    });
  }
  for (int child = 0; child < 40; ++child) {
    ExpectInChild([] {
      std::vector<void *> blocks;
      for (size_t size : kSizes) {
        blocks.push_back(hak_malloc(size));
        if (blocks.back() == nullptr) return false;
        Fill(blocks.back(), std::min<size_t>(size, 2000), size);
      }
      for (size_t i = 0; i < blocks.size(); ++i) {
        if (!IsFilled(blocks[i], std::min<size_t>(kSizes[i], 2000), kSizes[i])) return false;
        hak_free(blocks[i]);
      }
      hak_trim(0);
      return true;
    });
  }
  stop = true;
  for (auto &thread : threads) thread.join();
}

TEST(RouterFork, AChildFreesAndKeepsWhatItsParentAllocated) {
  std::vector<void *> blocks;
  for (size_t size : kSizes) {
    blocks.push_back(hak_malloc(size));
    Fill(blocks.back(), size, size);
  }
  ExpectInChild([&] {
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (!IsFilled(blocks[i], kSizes[i], kSizes[i])) return false;
      hak_free(blocks[i]);
    }
    return true;
  });
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_TRUE(IsFilled(blocks[i], kSizes[i], kSizes[i]));
    hak_free(blocks[i]);
  }
}

}  // namespace

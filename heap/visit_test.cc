// Visits: what one thread does to the heaps of others, and what a fork's child does to those of threads that are gone.
// Most tests play several threads by turns; where waiting or a race is the point, the threads are real.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "base/atomic.h"
#include "base/compiler.h"
#include "heap/heap.h"
#include "heap/test_heap.h"
#include "platform/delay.h"
#include "platform/lock.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"

namespace {

using hak_test::ClassOf;
using hak_test::ExpectInChild;
using hak_test::kBytes;
using hak_test::kKind;
using hak_test::kMidKind;
using hak_test::kPageBytes;
using hak_test::kRunBytes;
using hak_test::n_orphaned;
using hak_test::SlabOf;
using hak_test::ThinOut;
using hak_test::Thread;

constexpr size_t kSlabs = 20;  // more than a heap keeps as spares

class Visit : public hak_test::HeapTest {
 protected:
  // Full slabs, and one block of the current one.
  static std::vector<void *> MallocSlabs(Thread *thread) {
    return thread->MallocMany(kKind, kSlabs * ClassOf(kKind).n_blocks + 1);
  }
};

// Decay

TEST_F(Visit, ATickCollectsWhatOthersFreedForASleepingThread) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  std::vector<void *> blocks = MallocSlabs(&sleeper);
  visitor.FreeAll(blocks);
  hak_heap_flush(&visitor.cache);
  EXPECT_EQ(RunsUsed(), kSlabs + 1);
  TickAfter(HAK_POOL_PURGE_DELAY_MS / 2, visitor);
  EXPECT_LE(RunsUsed(), 2u + HAK_HEAP_SPARES);
  EXPECT_EQ(sleeper.cache.seat->owner_id, sleeper.cache.heap->id) << "it may go on";
  for (int i = 0; i < 4; ++i) TickAfter(HAK_POOL_PURGE_DELAY_MS, visitor);
  EXPECT_LE(RunsUsed(), 2u) << "the current slab, and an empty one";
}

TEST_F(Visit, ATickPublishesWhatASleepingThreadGathered) {
  Thread owner(&heaps_);
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  void *p = owner.Malloc(kKind);
  sleeper.Free(p);
  EXPECT_EQ(owner.cache.heap->mail, nullptr);
  TickAfter(HAK_POOL_PURGE_DELAY_MS, visitor);
  for (const hak_outbox_slot &slot : sleeper.cache.seat->outbox) EXPECT_EQ(slot.base, 0u);
}

TEST_F(Visit, ATickReturnsPagesThatASleepingThreadLeftUnusedForTheDecayTime) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  std::vector<void *> blocks = sleeper.MallocSlab(kKind);
  void *of_current = sleeper.Malloc(kKind);
  void *kept = blocks[0];
  for (size_t i = 1; i < blocks.size(); ++i) sleeper.Free(blocks[i]);
  TickAfter(HAK_POOL_PURGE_DELAY_MS - 1, visitor);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  TickAfter(HAK_POOL_PURGE_DELAY_MS / 2, visitor);
  EXPECT_EQ(hak_os_fake_purged_bytes(), kRunBytes - kPageBytes) << "all but the page of the block that is in use";
  sleeper.Free(kept);
  sleeper.Free(of_current);
}

// All but one page of a sleeping thread's current slab, of which others have freed all but the first block.
TEST_F(Visit, ATickReturnsWhatOthersFreedInASleepingThreadsCurrentSlab) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  std::vector<void *> blocks = sleeper.MallocSlab(kKind);
  const hak_slab *slab = SlabOf(blocks[0]);
  ASSERT_EQ(slab->state, HAK_SLAB_CURRENT);
  void *kept = blocks[0];
  blocks.erase(blocks.begin());
  visitor.FreeAll(blocks);
  hak_heap_flush(&visitor.cache);
  TickAfter(HAK_POOL_PURGE_DELAY_MS / 2, visitor);  // collects
  TickAfter(HAK_POOL_PURGE_DELAY_MS / 2, visitor);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u) << "not yet";
  TickAfter(HAK_POOL_PURGE_DELAY_MS / 2, visitor);
  EXPECT_EQ(hak_os_fake_purged_bytes(), kRunBytes - kPageBytes);
  EXPECT_EQ(slab->state, HAK_SLAB_CURRENT);

  // Every block is there, once.
  std::set<void *> all = {kept};
  for (size_t i = 0; i < blocks.size(); ++i) {
    void *p = sleeper.Malloc(kKind);
    EXPECT_EQ(SlabOf(p), slab);
    EXPECT_TRUE(all.insert(memset(p, 0x5a, kBytes)).second);
  }
  sleeper.FreeAll({all.begin(), all.end()});
}

TEST_F(Visit, ACurrentSlabThatAVisitorHasEmptiedIsEmptyWhenItIsSetAside) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  std::vector<void *> first = sleeper.MallocSlab(kKind);
  std::vector<void *> second = sleeper.MallocSlab(kKind);
  const hak_slab *slab = SlabOf(second[0]);
  ASSERT_EQ(slab->state, HAK_SLAB_CURRENT);
  for (size_t i = 0; i < first.size() / 2; ++i) sleeper.Free(first[i]);
  first.erase(first.begin(), first.begin() + static_cast<ptrdiff_t>(first.size() / 2));
  visitor.FreeAll(second);
  hak_heap_flush(&visitor.cache);
  hak_heap_set_trim(&heaps_, &visitor.cache);
  ASSERT_EQ(slab->dirty, 0u);
  first.push_back(sleeper.Malloc(kKind));
  EXPECT_EQ(slab->state, HAK_SLAB_SPARSE);
  EXPECT_EQ(hak_slab_used(slab), 0u);
  sleeper.FreeAll(first);
}

// Of each page, the thread itself has freed one block.
TEST_F(Visit, WhatAThreadHasAtHandStays) {
  for (uint32_t kind : {kKind, uint32_t{HAK_KIND_MID_FIRST}}) {
    Thread sleeper(&heaps_);
    std::vector<void *> blocks = sleeper.MallocSlab(kind);
    std::set<uintptr_t> pages;
    std::vector<void *> own;
    {
      Thread other(&heaps_);
      for (void *p : blocks) {
        if (pages.insert(reinterpret_cast<uintptr_t>(p) / kPageBytes).second) {
          own.push_back(p);
        } else {
          other.Free(p);
        }
      }
    }
    if (kind == kKind) sleeper.FreeAll(own);
    const size_t before = hak_os_fake_purged_bytes();
    hak_heap_set_trim(&heaps_, nullptr);
    hak_heap_set_trim(&heaps_, nullptr);
    EXPECT_EQ(hak_os_fake_purged_bytes(), before);
    if (kind != kKind) sleeper.FreeAll(own);
    std::vector<void *> again = sleeper.MallocSlab(kind);
    EXPECT_EQ(std::set<void *>(again.begin(), again.end()), std::set<void *>(blocks.begin(), blocks.end()));
    sleeper.FreeAll(again);
  }
}

// Nobody else waits longer than a few looks take.
TEST_F(Visit, WhatIsTooMuchForOneTickGoesOnWithTheNext) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  constexpr size_t kMany = HAK_DECAY_LOOKS + 10;
  pool_.retain.min_bytes = SIZE_MAX;
  std::vector<void *> kept = ThinOut(&sleeper, &sleeper, kKind, kMany);
  constexpr size_t kOfSlab = kRunBytes - kPageBytes;
  EXPECT_TRUE(TickAfter(HAK_POOL_PURGE_DELAY_MS, visitor)) << "there is more";
  EXPECT_EQ(hak_os_fake_purged_bytes(), HAK_DECAY_LOOKS * kOfSlab);
  TickAfter(HAK_DECAY_REST_MS - 1, visitor);
  EXPECT_EQ(hak_os_fake_purged_bytes(), HAK_DECAY_LOOKS * kOfSlab);
  EXPECT_FALSE(TickAfter(1, visitor));
  EXPECT_EQ(hak_os_fake_purged_bytes(), kMany * kOfSlab);
  TickAfter(HAK_POOL_PURGE_DELAY_MS / 2 - 1, visitor);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_BARRIER), 2u) << "there was time for all";
  sleeper.FreeAll(kept);
}

// So that each thread waits for its own heap only, and no longer than a few looks take.
TEST_F(Visit, ATrimVisitsOneHeapAfterTheOtherSomeSlabsAtATime) {
  Thread visitor(&heaps_);
  Thread small(&heaps_);
  Thread large(&heaps_);
  void *of_small = small.Malloc(kKind);
  constexpr size_t kMany = 2 * HAK_DECAY_LOOKS + 10;
  pool_.retain.min_bytes = SIZE_MAX;
  std::vector<void *> kept = ThinOut(&large, &large, kKind, kMany);
  hak_heap_set_trim(&heaps_, &visitor.cache);
  // Of the current slab as well: memory that was populated.
  EXPECT_EQ(hak_os_fake_purged_bytes(), (kMany + 1) * (kRunBytes - kPageBytes));
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_BARRIER), 3u + 1u);
  large.FreeAll(kept);
  small.Free(of_small);
}

// The visitor may have read the clock before the owner freed.
TEST_F(Visit, WhatWasFreedAfterTheTickBeganIsNotDue) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  std::vector<void *> blocks = sleeper.MallocSlab(kKind);
  void *of_current = sleeper.Malloc(kKind);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  for (size_t i = 1; i < blocks.size(); ++i) sleeper.Free(blocks[i]);
  ASSERT_TRUE(SlabOf(blocks[0])->purgeable);
  ++SlabOf(blocks[0])->purgeable_ms;
  TickAfter(0, visitor);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_BARRIER), 1u);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  sleeper.Free(blocks[0]);
  sleeper.Free(of_current);
}

TEST_F(Visit, ThatAnotherThreadTickedFirstKeepsNoRecentBlocks) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "the hardened library has none";
  Thread owner(&heaps_);
  Thread visitor(&heaps_);
  std::vector<void *> blocks = owner.MallocSlab(kMidKind);
  blocks.push_back(owner.Malloc(kMidKind));
  owner.FreeAsRecent(blocks[0]);
  ASSERT_NE(owner.cache.at_hand.recent[kMidKind - HAK_KIND_MID_FIRST], 0u);
  TickAfter(HAK_POOL_PURGE_DELAY_MS, visitor);
  EXPECT_NE(owner.cache.at_hand.recent[kMidKind - HAK_KIND_MID_FIRST], 0u) << "a visitor leaves them alone";
  hak_heap_tick(&owner.cache);
  EXPECT_EQ(owner.cache.at_hand.recent[kMidKind - HAK_KIND_MID_FIRST], 0u);
  blocks.erase(blocks.begin());
  owner.FreeAll(blocks);
}

TEST_F(Visit, ATickLeavesThreadsAloneThatTickThemselves) {
  Thread busy(&heaps_);
  Thread visitor(&heaps_);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS);
  hak_heap_tick(&busy.cache);
  hak_heap_tick(&visitor.cache);
  hak_heap_set_tick(&heaps_, &visitor.cache);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_BARRIER), 0u) << "with nobody to visit there is no system call";
}

TEST_F(Visit, ATickDoesNothingWithinHalfTheDecayTimeOfTheLastOne) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  TickAfter(HAK_POOL_PURGE_DELAY_MS, visitor);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_BARRIER), 1u);
  TickAfter(HAK_POOL_PURGE_DELAY_MS / 2 - 1, visitor);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_BARRIER), 1u);
  TickAfter(1, visitor);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_BARRIER), 2u);
}

// Trim

TEST_F(Visit, ATrimReachesTheHeapsOfAllOtherThreads) {
  Thread first(&heaps_);
  Thread second(&heaps_);
  Thread visitor(&heaps_);
  for (Thread *thread : {&first, &second}) thread->FreeAll(MallocSlabs(thread));
  EXPECT_GT(RunsUsed(), 2u);
  hak_heap_set_trim(&heaps_, &visitor.cache);
  EXPECT_EQ(RunsUsed(), 2u) << "the current slabs";
}

TEST_F(Visit, ATrimReturnsWhatOthersFreedInASleepingThreadsCurrentSlab) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  std::vector<void *> blocks = sleeper.MallocSlab(kKind);
  visitor.FreeAll(blocks);
  hak_heap_flush(&visitor.cache);
  EXPECT_EQ(hak_heap_set_trim(&heaps_, &visitor.cache), kRunBytes);
  EXPECT_EQ(hak_heap_set_trim(&heaps_, &visitor.cache), 0u);
  EXPECT_EQ(RunsUsed(), 1u);
}

TEST_F(Visit, ATrimCollectsWhatSleepingThreadsFreedForEachOther) {
  Thread first(&heaps_);
  Thread second(&heaps_);
  std::vector<void *> of_first = MallocSlabs(&first);
  std::vector<void *> of_second = MallocSlabs(&second);
  first.FreeAll(of_second);
  second.FreeAll(of_first);
  // What is in the outbox of a heap that is visited late arrives at one that was visited before.
  hak_heap_set_trim(&heaps_, nullptr);
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(RunsUsed(), 2u) << "the current slabs";
}

TEST_F(Visit, ATrimLeavesOutTheCallingThread) {
  Thread thread(&heaps_);
  Thread other(&heaps_);
  thread.FreeAll(MallocSlabs(&thread));
  size_t n_used = pool_.n_slabs_used;
  hak_heap_set_trim(&heaps_, &thread.cache);
  EXPECT_EQ(pool_.n_slabs_used, n_used);
}

TEST_F(Visit, AHeapWhoseThreadIsAtWorkIsLeftOut) {
  Thread busy(&heaps_);
  busy.FreeAll(MallocSlabs(&busy));
  size_t n_used = pool_.n_slabs_used;
  hak_store_relaxed(&busy.cache.seat->inside, 1);
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(pool_.n_slabs_used, n_used);
  EXPECT_EQ(busy.cache.seat->owner_id, busy.cache.heap->id) << "it may go on";
  hak_store_relaxed(&busy.cache.seat->inside, 0);
  hak_heap_set_trim(&heaps_, nullptr);
  EXPECT_EQ(RunsUsed(), 1u);
}

TEST_F(Visit, NobodyIsVisitedWhereTheKernelRefusesTheBarrier) {
  Thread sleeper(&heaps_);
  Thread visitor(&heaps_);
  sleeper.FreeAll(MallocSlabs(&sleeper));
  size_t n_used = pool_.n_slabs_used;
  hak_os_fake_fail(HAK_OS_FAKE_BARRIER, 1, SIZE_MAX);
  EXPECT_EQ(hak_heap_set_trim(&heaps_, &visitor.cache), 0u);
  for (int i = 0; i < 3; ++i) TickAfter(HAK_POOL_PURGE_DELAY_MS, visitor);
  EXPECT_EQ(pool_.n_slabs_used, n_used);
  EXPECT_EQ(sleeper.cache.seat->owner_id, sleeper.cache.heap->id);
}

TEST_F(Visit, AnOwnerWaitsUntilTheVisitorHasLeft) {
  Thread owner(&heaps_);
  void *p = owner.Malloc(kKind);
  std::vector<void *> others = owner.MallocSlab(kKind);
  int visitors_work = 0;
  std::atomic<bool> visited{true}, started{false};
  hak_heap_set_before_fork(&heaps_, nullptr);
  std::thread thread([&] {
    started = true;
    owner.Free(p);  // of a slab that is not current
    EXPECT_FALSE(visited) << "the owner did not wait";
    EXPECT_EQ(visitors_work, 1000);
  });
  while (!started) std::this_thread::yield();
  for (; visitors_work < 1000; ++visitors_work) std::this_thread::yield();
  visited = false;
  hak_heap_set_after_fork_in_parent(&heaps_);
  thread.join();
  owner.FreeAll(others);
}

TEST_F(Visit, AForkWaitsUntilTheOwnerHasLeft) {
  Thread owner(&heaps_);
  hak_store_relaxed(&owner.cache.seat->inside, 1);
  int owners_work = 0;
  std::atomic<bool> started{false};
  std::thread thread([&] {
    started = true;
    for (; owners_work < 1000; ++owners_work) std::this_thread::yield();
    hak_store_release(&owner.cache.seat->inside, 0);
  });
  while (!started) std::this_thread::yield();
  hak_heap_set_before_fork(&heaps_, nullptr);
  EXPECT_EQ(owners_work, 1000);
  hak_heap_set_after_fork_in_parent(&heaps_);
  thread.join();
}

// Fork

TEST_F(Visit, NoForkHandlerOfAnotherLibraryLetsTheOwnersIn) {
  Thread forking(&heaps_);
  Thread owner(&heaps_);
  hak_heap_set_before_fork(&heaps_, &forking.cache);
  hak_lock_all_held = true;
  // Such handlers may allocate, and so tick.
  TickAfter(10 * HAK_POOL_PURGE_DELAY_MS, forking);
  hak_heap_set_trim(&heaps_, &forking.cache);
  EXPECT_EQ(owner.cache.seat->owner_id, HAK_NO_OWNER);
  hak_lock_all_held = false;
  hak_heap_set_after_fork_in_parent(&heaps_);
  EXPECT_EQ(owner.cache.seat->owner_id, owner.cache.heap->id);
}

TEST_F(Visit, AForksChildReusesAllMemoryOfTheThreadsThatAreGone) {
  Thread forking(&heaps_);
  Thread first(&heaps_);
  Thread second(&heaps_);
  std::vector<void *> own = MallocSlabs(&forking);
  std::vector<void *> of_first = MallocSlabs(&first);
  std::vector<void *> of_second = MallocSlabs(&second);
  // What waits in outboxes when the process forks is not lost either.
  first.Free(of_second.back());
  second.Free(of_first.back());
  of_first.pop_back();
  of_second.pop_back();
  ExpectInChild(&heaps_, &forking.cache, [&] {
    if (n_orphaned != 2) return false;
    forking.FreeAll(of_first);
    forking.FreeAll(of_second);
    forking.FreeAll(own);
    hak_heap_trim(&forking.cache);
    hak_heap_set_trim(&heaps_, &forking.cache);
    hak_heap_detach(&forking.cache);
    hak_heap_set_trim(&heaps_, nullptr);
    return pool_.n_slabs_used == 0;
  });
  EXPECT_EQ(first.cache.seat->owner_id, first.cache.heap->id) << "in the parent they go on";
  first.FreeAll(of_first);
  second.FreeAll(of_second);
  forking.FreeAll(own);
}

TEST_F(Visit, AForksChildMayFreeBlocksOfHeapsThatCouldNotBeVisited) {
  Thread forking(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = MallocSlabs(&other);
  hak_os_fake_fail(HAK_OS_FAKE_BARRIER, 1, SIZE_MAX);
  ExpectInChild(&heaps_, &forking.cache, [&] {
    forking.FreeAll(blocks);
    hak_heap_flush(&forking.cache);
    hak_heap_set_trim(&heaps_, &forking.cache);
    std::vector<void *> own = MallocSlabs(&forking);
    std::set<void *> all(own.begin(), own.end());
    return n_orphaned == 0 && all.size() == own.size() && RunsUsed() == 2 * (kSlabs + 1);
  });
  other.FreeAll(blocks);
}

// Real threads

// Fills blocks, hands some to whoever comes next, and checks what is in those that it frees.
class Worker {
 public:
  Worker(Thread *thread, unsigned seed) : thread_(thread), random_(seed) {}

  void Step() {
    const uint32_t kinds[] = {1, 4, 33, 64, 70, HAK_KIND_MID_LAST};
    const uint32_t kind = kinds[random_() % 6];
    auto *block = static_cast<unsigned char *>(thread_->Malloc(kind));
    ASSERT_NE(block, nullptr);
    memset(block, static_cast<int>(kind), ClassOf(kind).block_bytes);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      handed_.push_back(block);
      if (handed_.size() < 400) return;
      std::swap(handed_[random_() % handed_.size()], handed_.back());
      block = handed_.back();
      handed_.pop_back();
    }
    Free(thread_, block);
  }

  static void Free(Thread *thread, unsigned char *block) {
    const uint32_t kind = hak_entry_kind(hak_registry_find(block));
    const size_t bytes = ClassOf(kind).block_bytes;
    ASSERT_EQ(block[0], kind);
    ASSERT_EQ(memcmp(block, block + 1, bytes - 1), 0);
    thread->Free(block);
  }

  static void FreeHanded(Thread *thread) {
    for (unsigned char *block : handed_) Free(thread, block);
    handed_.clear();
  }

 private:
  Thread *thread_;
  std::minstd_rand random_;
  static std::mutex mutex_;
  static std::vector<unsigned char *> handed_;
};

std::mutex Worker::mutex_;
std::vector<unsigned char *> Worker::handed_;

TEST_F(Visit, BlocksOfTwoThreadsKeepTheirContentWhileAThirdVisitsThem) {
  pool_.retain.delay_ms = 0;
  pool_.retain.min_bytes = 0;
  const uint64_t n_delays = hak_delay_count();
  std::atomic<int> n_working{2};
  std::vector<std::thread> threads;
  for (unsigned seed = 1; seed <= 2; ++seed) {
    threads.emplace_back([&, seed] {
      Thread thread(&heaps_);
      Worker worker(&thread, seed);
      for (int i = 0; i < 15000; ++i) worker.Step();
      --n_working;
    });
  }
  for (int i = 0; n_working != 0; ++i) {
    hak_os_fake_advance_ms(1);
    std::this_thread::yield();
    if (i % 2 == 0) {
      hak_heap_set_tick(&heaps_, nullptr);
    } else {
      hak_heap_set_trim(&heaps_, nullptr);
    }
  }
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(hak_delay_count() > n_delays, hak_delay_seed() != 0) << "in checked builds threads are delayed";
  Thread last(&heaps_);
  Worker::FreeHanded(&last);
}

TEST_F(Visit, AForksChildFindsTheHeapOfABusyThreadWhole) {
  Thread forking(&heaps_);
  std::atomic<bool> begun{false};
  std::atomic<bool> ends{false};
  std::thread busy([&] {
    Thread thread(&heaps_);
    std::minstd_rand random(1);
    // At once: a sanitizer's malloc that is caught at work by the fork is locked for good in the child.
    constexpr size_t kMost = 5000;
    std::vector<void *> blocks;
    blocks.reserve(kMost);
    begun = true;
    while (!ends) {
      if (random() % 2 == 0 && blocks.size() < kMost) {
        blocks.push_back(thread.Malloc(1 + random() % 8));
      } else if (!blocks.empty()) {
        std::swap(blocks[random() % blocks.size()], blocks.back());
        thread.Free(blocks.back());
        blocks.pop_back();
      }
    }
    thread.FreeAll(blocks);
  });
  while (!begun) std::this_thread::yield();
  for (int i = 0; i < 8; ++i) {
    ExpectInChild(&heaps_, &forking.cache, [&] {
      // Everything the other thread had free is handed out, once.
      Thread successor(&heaps_);
      std::set<void *> blocks;
      for (uint32_t kind = 1; kind <= 8; ++kind) {
        for (void *p : successor.MallocMany(kind, 2000)) {
          memset(p, 0x5a, 16 * kind);
          if (!blocks.insert(p).second) return false;
        }
      }
      for (void *p : blocks) successor.Free(p);
      return true;
    });
  }
  ends = true;
  busy.join();
}

}  // namespace

// Threads that ended without a word: their heaps, and what they had at hand.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <new>
#include <set>
#include <vector>

#include "base/atomic.h"
#include "heap/heap.h"
#include "heap/test_heap.h"

namespace {

using hak_test::ClassOf;
using hak_test::ExpectInChild;
using hak_test::kKind;
using hak_test::n_orphaned;
using hak_test::SlabOf;
using hak_test::Thread;

// Runs `work` in a thread that ends by the system call alone, and takes its cache, as its thread-local memory, away, or
// leaves other memory there.
void RunInLostThread(hak_heap_set *heaps, const std::function<void(hak_cache *cache)> &work, bool unmap = true) {
  void *page = mmap(nullptr, sizeof(hak_cache), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto *cache = new (page) hak_cache HAK_CACHE_INIT;
  std::function<void()> all = [&] {
    EXPECT_TRUE(hak_heap_attach(heaps, cache));
    work(cache);
    syscall(SYS_exit, 0);
  };
  auto run = [](void *argument) -> void * {
    (*static_cast<std::function<void()> *>(argument))();
    return nullptr;
  };
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, nullptr, run, &all), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  if (unmap) {
    munmap(page, sizeof(hak_cache));
  } else {
    memset(page, 0x5a, sizeof(hak_cache));
  }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitizersNeedTheEnd = true;
#else
constexpr bool kSanitizersNeedTheEnd = false;
#endif

class LostThread : public hak_test::HeapTest {
 protected:
  void SetUp() override {
    HeapTest::SetUp();
    if (kSanitizersNeedTheEnd) GTEST_SKIP() << "the sanitizer keeps account of each thread's end";
  }

  // A whole slab: nothing is left at hand.
  void MallocSlabInLostThread(bool unmap = true) {
    auto work = [this](hak_cache *cache) {
      while (blocks_.size() < ClassOf(kKind).n_blocks) blocks_.push_back(hak_test::Malloc(cache, kKind));
      heap_ = cache->heap;
    };
    RunInLostThread(&heaps_, work, unmap);
  }

  void ExpectThatAForksChildLeavesItsCacheAlone() {
    Thread forking(&heaps_);
    ExpectInChild(&heaps_, &forking.cache, [&] {
      if (n_orphaned != 0 || heaps_.n_attached != 1) return false;
      forking.FreeAll(blocks_);
      hak_heap_detach(&forking.cache);
      hak_heap_set_trim(&heaps_, nullptr);
      return pool_.n_slabs_used == 0;
    });
    forking.FreeAll(blocks_);
  }

  std::vector<void *> blocks_;
  const hak_heap *heap_ = nullptr;
};

TEST_F(LostThread, ATrimMakesItsHeapAnOrphan) {
  MallocSlabInLostThread();
  Thread other(&heaps_);
  EXPECT_EQ(heaps_.n_attached, 2u);
  hak_heap_set_trim(&heaps_, &other.cache);
  EXPECT_EQ(heaps_.n_attached, 1u);
  Thread successor(&heaps_);
  EXPECT_EQ(successor.cache.heap, heap_);
  successor.FreeAll(blocks_);
}

TEST_F(LostThread, ATickMakesItsHeapAnOrphan) {
  MallocSlabInLostThread();
  Thread other(&heaps_);
  TickAfter(HAK_POOL_PURGE_DELAY_MS, other);
  EXPECT_EQ(heaps_.n_attached, 1u);
  Thread successor(&heaps_);
  EXPECT_EQ(successor.cache.heap, heap_);
  successor.FreeAll(blocks_);
}

TEST_F(LostThread, WhatItGatheredIsPublished) {
  Thread owner(&heaps_);
  void *p = owner.Malloc(kKind);
  RunInLostThread(&heaps_, [&](hak_cache *cache) { hak_heap_free(cache, p, "free"); });
  EXPECT_EQ(owner.cache.heap->mail, nullptr);
  hak_heap_set_trim(&heaps_, &owner.cache);
  EXPECT_NE(owner.cache.heap->mail, nullptr);
}

TEST_F(LostThread, WhatItHadAtHandStaysInUse) {
  void *block = nullptr;
  RunInLostThread(&heaps_, [&](hak_cache *cache) { block = hak_test::Malloc(cache, kKind); });
  Thread other(&heaps_);
  hak_heap_set_trim(&heaps_, &other.cache);
  const hak_slab *slab = SlabOf(block);
  const uint32_t n_carved = hak_slab_used(slab);
  EXPECT_GT(n_carved, 1u);
  for (uint32_t i = 0; i < n_carved; ++i) other.Free(reinterpret_cast<char *>(slab->base) + i * slab->block_bytes);
  hak_heap_flush(&other.cache);
}

TEST_F(LostThread, WhatItsPredecessorHadAtHandIsNotHandedOutAgain) {
  void *first = nullptr;
  {
    Thread predecessor(&heaps_);
    first = predecessor.Malloc(kKind);
  }
  std::set<void *> lost;
  RunInLostThread(&heaps_, [&](hak_cache *cache) {
    while (void *p = hak_test::TakeAtHand(cache, kKind)) lost.insert(p);
  });
  EXPECT_FALSE(lost.empty());
  Thread other(&heaps_);
  hak_heap_set_trim(&heaps_, &other.cache);
  Thread successor(&heaps_);
  std::vector<void *> blocks = successor.MallocSlab(kKind);
  for (void *p : blocks) EXPECT_EQ(lost.count(p), 0u);
  successor.FreeAll(blocks);
  for (void *p : lost) successor.Free(p);
  successor.Free(first);
}

TEST_F(LostThread, AForksChildLeavesItsCacheAlone) {
  MallocSlabInLostThread();
  ExpectThatAForksChildLeavesItsCacheAlone();
}

TEST_F(LostThread, AForksChildLeavesAloneWhatLiesWhereItsCacheWas) {
  MallocSlabInLostThread(/*unmap=*/false);
  ExpectThatAForksChildLeavesItsCacheAlone();
}

// Nobody knows in what state the heap is.
TEST_F(LostThread, AForkDoesNotWaitForOneThatWasAtWork) {
  RunInLostThread(&heaps_, [](hak_cache *cache) { hak_store_relaxed(&cache->seat->inside, 1); });
  Thread forking(&heaps_);
  ExpectInChild(&heaps_, &forking.cache, [&] { return n_orphaned == 0 && heaps_.n_attached == 1; });
  EXPECT_EQ(heaps_.n_attached, 1u);
  Thread other(&heaps_);
  EXPECT_EQ(heaps_.newest_orphan, nullptr) << "nor is it given to anybody";
}

}  // namespace

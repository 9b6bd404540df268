// Heaps used by several threads at once: hand-offs, exits, adoption. Every block is filled with a pattern that only its
// holder knows, so that a block that is handed out twice, or written by the allocator while it is live, is noticed.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <iterator>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "heap/heap.h"
#include "heap/test_heap.h"
#include "platform/delay.h"
#include "platform/os.h"

namespace {

using hak_test::ClassOf;

struct Block {
  unsigned char *p;
  uint32_t kind;
  unsigned char pattern;
};

class HeapThreads : public ::testing::Test {
 protected:
  void SetUp() override {
    n_delays_ = hak_delay_count();
    hak_pool_init(&pool_, hak_os_linux());
    hak_heap_set_init(&heaps_, &pool_, HAK_REFILL_COUNT_DEFAULT, false);
  }

  // Everything was freed: when all mail is drained, no slab is left in use.
  void TearDown() override {
    hak_cache cache = HAK_CACHE_INIT;
    for (int i = 0; i < 64; ++i) {  // every heap's mail, whoever got it by mistake
      ASSERT_TRUE(hak_heap_attach(&heaps_, &cache));
      hak_heap_detach(&cache);
      hak_heap_set_trim(&heaps_, nullptr);
    }
    EXPECT_EQ(pool_.n_slabs_used, 0u);
    hak_pool_destroy(&pool_);
    EXPECT_EQ(pool_.n_superslabs, 0u);
    EXPECT_EQ(hak_delay_count() > n_delays_, hak_delay_seed() != 0) << "in checked builds threads are delayed";
  }

  static Block Malloc(hak_cache *cache, uint32_t kind, unsigned char pattern) {
    void *p = hak_test::Malloc(cache, kind);
    if (p == nullptr) abort();
    memset(p, pattern, ClassOf(kind).block_bytes);
    return {static_cast<unsigned char *>(p), kind, pattern};
  }

  static void Free(hak_cache *cache, Block block) {
    uint32_t bytes = ClassOf(block.kind).block_bytes;
    for (uint32_t i = 0; i < bytes; ++i) {
      if (block.p[i] != block.pattern) {
        ADD_FAILURE() << "block of kind " << block.kind << " was overwritten at byte " << i;
        break;
      }
    }
    hak_test::FreeAsRecent(cache, block.p);
  }

  hak_pool pool_;
  hak_heap_set heaps_;
  uint64_t n_delays_;
};

// A bounded queue through which blocks change threads.
class Mailbox {
 public:
  void Put(Block block) {
    std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back(block);
  }
  bool Get(Block *block) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (blocks_.empty()) return false;
    *block = blocks_.front();
    blocks_.pop_front();
    return true;
  }

 private:
  std::mutex mutex_;
  std::deque<Block> blocks_;
};

TEST_F(HeapThreads, BlocksHandedAroundKeepTheirContentAndAreAllReturned) {
  constexpr int kThreads = 4;
  constexpr int kSteps = 60000;
  Mailbox mailboxes[kThreads];
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      hak_cache cache = HAK_CACHE_INIT;
      ASSERT_TRUE(hak_heap_attach(&heaps_, &cache));
      std::minstd_rand random(static_cast<unsigned>(t) + 1);
      std::vector<Block> own;
      const uint32_t kinds[] = {1, 2, 4, 16, 63, 64, 65, 80, 95, HAK_KIND_MID_LAST_CLASS, HAK_KIND_MID_LAST};
      for (int step = 0; step < kSteps; ++step) {
        auto pattern = static_cast<unsigned char>(random());
        Block block = Malloc(&cache, kinds[random() % std::size(kinds)], pattern);
        switch (random() % 4) {
          case 0:
            mailboxes[random() % kThreads].Put(block);
            break;
          case 1:
            Free(&cache, block);
            break;
          default:
            own.push_back(block);
        }
        if (own.size() > 300) {
          for (int i = 0; i < 100; ++i) {
            size_t which = random() % own.size();
            Free(&cache, own[which]);
            own[which] = own.back();
            own.pop_back();
          }
        }
        Block received;
        if (mailboxes[t].Get(&received)) Free(&cache, received);
      }
      for (Block block : own) Free(&cache, block);
      hak_heap_detach(&cache);
    });
  }
  for (auto &thread : threads) thread.join();
  hak_cache cache = HAK_CACHE_INIT;
  ASSERT_TRUE(hak_heap_attach(&heaps_, &cache));
  Block block;
  for (auto &mailbox : mailboxes) {
    while (mailbox.Get(&block)) Free(&cache, block);
  }
  hak_heap_detach(&cache);
}

TEST_F(HeapThreads, ShortThreadsInheritBlocksFromEachOtherWithoutGrowth) {
  constexpr int kThreads = 3;
  constexpr unsigned kKinds = 8;
  Mailbox mailbox;
  for (int generation = 0; generation < 1000; ++generation) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t, generation] {
        hak_cache cache = HAK_CACHE_INIT;
        ASSERT_TRUE(hak_heap_attach(&heaps_, &cache));
        std::minstd_rand random(static_cast<unsigned>(generation * kThreads + t));
        Block block;
        for (int i = 0; i < 200; ++i) mailbox.Put(Malloc(&cache, 1 + random() % kKinds, static_cast<unsigned char>(i)));
        for (int i = 0; i < 200 && mailbox.Get(&block); ++i) Free(&cache, block);
        hak_heap_detach(&cache);
      });
    }
    for (auto &thread : threads) thread.join();
  }
  // A run of each kind for each thread, and a bit: all blocks together would take twice as much.
  EXPECT_LE(pool_.n_superslabs, kThreads * kKinds * hak_test::kRunBytes / HAK_SUPERSLAB_BYTES + 1);
  hak_cache cache = HAK_CACHE_INIT;
  ASSERT_TRUE(hak_heap_attach(&heaps_, &cache));
  Block block;
  while (mailbox.Get(&block)) Free(&cache, block);
  hak_heap_detach(&cache);
}

TEST_F(HeapThreads, WhatOneThreadOnlyAllocatesAndAnotherOnlyFreesIsReused) {
  Mailbox mailbox;
  constexpr int kBlocks = 400000;
  constexpr int kInFlight = 2000;
  std::atomic<int> in_flight{0};
  std::thread producer([&] {
    hak_cache cache = HAK_CACHE_INIT;
    ASSERT_TRUE(hak_heap_attach(&heaps_, &cache));
    for (int i = 0; i < kBlocks; ++i) {
      while (in_flight.load() >= kInFlight) std::this_thread::yield();
      mailbox.Put(Malloc(&cache, 8, static_cast<unsigned char>(i)));
      ++in_flight;
    }
    hak_heap_detach(&cache);
  });
  std::thread consumer([&] {
    hak_cache cache = HAK_CACHE_INIT;
    ASSERT_TRUE(hak_heap_attach(&heaps_, &cache));
    for (int i = 0; i < kBlocks;) {
      Block block;
      if (!mailbox.Get(&block)) {
        std::this_thread::yield();
        continue;
      }
      Free(&cache, block);
      --in_flight;
      ++i;
    }
    hak_heap_detach(&cache);
  });
  producer.join();
  consumer.join();
  // 50 MB went through; 256 KB were in flight.
  EXPECT_LE(pool_.n_superslabs, 1u);
}

}  // namespace

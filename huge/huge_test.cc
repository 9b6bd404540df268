// Huge as its callers see it: sizes and alignments, blocks that change their size, threads, misuse.
#include "huge/huge.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "huge/test_huge.h"
#include "platform/os_fake.h"
#include "platform/report.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

namespace {

using hak_test::Fill;
using hak_test::HugeTest;
using hak_test::IsFilled;
using hak_test::kGiB;
using hak_test::kKiB;
using hak_test::kMiB;

using HugeDeathTest = HugeTest;

size_t MinorFaults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_minflt);
}

TEST_F(HugeTest, EverySizeAndAlignmentIsServedAlignedAndWritableToItsLastByte) {
  for (const size_t size : {size_t{0}, size_t{1}, 2 * kMiB, 2 * kMiB + 1, 5 * kMiB + 123, 3 * kGiB}) {
    for (const size_t alignment : {size_t{1}, size_t{16}, 2 * kMiB, 4 * kMiB, 64 * kMiB, kGiB, 4 * kGiB}) {
      char *p = Malloc(size, alignment);
      ASSERT_NE(p, nullptr) << size << " " << alignment;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % std::max(alignment, 2 * kMiB), 0u);
      EXPECT_EQ(hak_entry_kind(hak_registry_find(p)), static_cast<uint32_t>(HAK_KIND_HUGE));
      const size_t usable = hak_huge_usable_size(p);
      EXPECT_GE(usable, size);
      p[0] = 1;
      p[usable - 1] = 1;
      Free(p);
      EXPECT_EQ(hak_registry_find(p), 0u);
    }
  }
}

TEST_F(HugeTest, SizesBeyondReasonAreRefused) {
  for (const size_t size : {size_t{PTRDIFF_MAX}, size_t{PTRDIFF_MAX} - 4096, size_t{PTRDIFF_MAX} + 1, SIZE_MAX,
                            SIZE_MAX - 4095, size_t{1} << 48}) {
    EXPECT_EQ(Malloc(size), nullptr);
    EXPECT_EQ(Malloc(size, size_t{1} << 40), nullptr);
  }
  EXPECT_EQ(Malloc(2 * kMiB, size_t{1} << 63), nullptr);
  char *p = Malloc(2 * kMiB);
  EXPECT_EQ(Resize(p, SIZE_MAX), nullptr);
  EXPECT_EQ(Resize(p, PTRDIFF_MAX), nullptr);
  EXPECT_EQ(hak_huge_usable_size(p), 2 * kMiB);
  Free(p);
}

TEST_F(HugeTest, OnlyTheFirstSlabIsRegistered) {
  char *p = Malloc(4 * kMiB);
  EXPECT_NE(hak_registry_find(p), 0u);
  EXPECT_NE(hak_registry_find(p + HAK_SLAB_BYTES - 1), 0u);
  EXPECT_EQ(hak_registry_find(p + HAK_SLAB_BYTES), 0u);
  EXPECT_EQ(hak_registry_find(p + 2 * kMiB), 0u);
  Free(p);
}

TEST_F(HugeTest, FreshMemoryIsZeroedAndReusedMemoryIsNotCalledSo) {
  bool zeroed = false;
  char *p = Malloc(4 * kMiB, 16, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(p[4 * kMiB - 1], 0);
  p[0] = 1;
  Free(p);
  char *again = Malloc(4 * kMiB, 16, &zeroed);
  EXPECT_EQ(again, p);
  EXPECT_FALSE(zeroed);
  Free(again);
}

TEST_F(HugeTest, LargeZeroedRequestsGetTheirPagesAnewSoThatNothingIsTouchedToClearThem) {
  char *p = Malloc(48 * kMiB);
  std::memset(p, 1, 48 * kMiB);
  Free(p);
  bool zeroed = false;
  char *q = Malloc(48 * kMiB, 16, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(std::count(q, q + 48 * kMiB, 0), static_cast<ptrdiff_t>(48 * kMiB));
  EXPECT_EQ(q, p) << "two mappings would be held";
  Free(q);
  hak_os_fake_fail(HAK_OS_FAKE_PURGE, 1, 1);
  q = Malloc(48 * kMiB, 16, &zeroed);
  EXPECT_FALSE(zeroed);
  Free(q);
}

// Resize

TEST_F(HugeTest, ShrinkingGivesTheTailBackAndStaysInPlace) {
  char *p = Malloc(40 * kMiB);
  Fill(p, 40 * kMiB, 1);
  const size_t before = hak_os_fake_mapped_bytes();
  EXPECT_EQ(Resize(p, 10 * kMiB), p);
  EXPECT_EQ(hak_huge_usable_size(p), 10 * kMiB);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), before - 30 * kMiB);
  EXPECT_EQ(heap_.live_bytes, 10 * kMiB);
  EXPECT_TRUE(IsFilled(p, 10 * kMiB, 1));
  EXPECT_EQ(Resize(p, 100), p);
  EXPECT_EQ(hak_huge_usable_size(p), 4 * kKiB);
  Free(p);
}

TEST_F(HugeTest, AnEighthMoreThanWantedIsNotGivenBack) {
  char *p = Malloc(10 * kMiB);
  EXPECT_EQ(Resize(p, 9 * kMiB), p);
  EXPECT_EQ(hak_huge_usable_size(p), 10 * kMiB);
  Free(p);
}

TEST_F(HugeTest, ABlockThatMovesKeepsItsContentAndIsNotCopied) {
  char *p = Malloc(32 * kMiB);
  Fill(p, 32 * kMiB, 9);
  // In place impossible: the first attempt fails, the second is the move.
  hak_os_fake_fail(HAK_OS_FAKE_REMAP, 1, 1);
  const size_t faults = MinorFaults();
  char *q = Resize(p, 64 * kMiB);
  EXPECT_LT(MinorFaults() - faults, 64u) << "a copy would touch 512 new pages";
  ASSERT_NE(q, nullptr);
  EXPECT_NE(q, p);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(q) % (2 * kMiB), 0u);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_REMAP), 2u);
  EXPECT_TRUE(IsFilled(q, 32 * kMiB, 9));
  EXPECT_EQ(q[64 * kMiB - 1], 0);
  EXPECT_EQ(hak_registry_find(p), 0u);
  EXPECT_NE(hak_registry_find(q), 0u);
  EXPECT_EQ(hak_huge_usable_size(q), 64 * kMiB);
  EXPECT_EQ(heap_.n_live, 1u);
  EXPECT_EQ(heap_.live_bytes, 64 * kMiB);
  Free(q);
}

TEST_F(HugeTest, AGrowingVectorKeepsItsContentWithAFewCallsPerStep) {
  size_t size = 2 * kMiB;
  char *p = Malloc(size);
  Fill(p, size, 4);
  int steps = 0;
  while (size < kGiB) {
    const size_t calls = hak_os_fake_count(HAK_OS_FAKE_ANY);
    const size_t new_size = size + size / 2;
    p = Resize(p, new_size);
    ASSERT_NE(p, nullptr);
    EXPECT_LE(hak_os_fake_count(HAK_OS_FAKE_ANY) - calls, 7u);
    size = new_size;
    ++steps;
  }
  EXPECT_GE(steps, 15);
  EXPECT_TRUE(IsFilled(p, 2 * kMiB, 4));
  Free(p);
}

TEST_F(HugeTest, WithoutLeaveToMoveABlockThatCannotGrowStaysAsItWas) {
  char *p = Malloc(4 * kMiB);
  Fill(p, 4 * kMiB, 2);
  hak_os_fake_fail(HAK_OS_FAKE_REMAP, 1, 1);
  EXPECT_EQ(Resize(p, 8 * kMiB, false), nullptr);
  EXPECT_EQ(hak_huge_usable_size(p), 4 * kMiB);
  EXPECT_TRUE(IsFilled(p, 4 * kMiB, 2));
  Free(p);
}

TEST_F(HugeTest, ABlockThatTheProgramHasProtectedInPartIsNotMovedAndStaysUsable) {
  char *p = Malloc(4 * kMiB);
  Fill(p, 4 * kMiB, 2);
  // Two mappings for the kernel, which moves one at a time only.
  ASSERT_EQ(mprotect(p + 2 * kMiB, 4096, PROT_READ), 0);
  char *q = Resize(p, 8 * kMiB);
  char *block = q != nullptr ? q : p;
  EXPECT_TRUE(IsFilled(block, 4 * kMiB, 2));
  EXPECT_EQ(hak_huge_usable_size(block), q != nullptr ? 8 * kMiB : 4 * kMiB);
  ASSERT_EQ(mprotect(block + 2 * kMiB, 4096, PROT_READ | PROT_WRITE), 0);
  Free(block);
}

TEST_F(HugeTest, BlocksOfARandomProgramDoNotOverlapAndKeepTheirContent) {
  struct Block {
    size_t size;
    uint64_t tag;
  };
  std::mt19937_64 random(8);
  std::map<char *, Block> live;
  uint64_t tag = 0;
  for (int i = 0; i < 3000; ++i) {
    if (live.size() < 8 || random() % 3 == 0) {
      const size_t size = 1 + random() % (12 * kMiB);
      const size_t alignment = random() % 8 == 0 ? size_t{1} << random() % 27 : 16;
      bool zeroed = false;
      char *p = Malloc(size, alignment, random() % 2 == 0 ? &zeroed : nullptr);
      ASSERT_NE(p, nullptr);
      if (zeroed) {
        for (size_t k = 0; k < size; k += 1024) ASSERT_EQ(p[k], 0);
      }
      Fill(p, size, ++tag);
      live[p] = {size, tag};
    } else {
      auto block = live.begin();
      std::advance(block, random() % live.size());
      char *p = block->first;
      ASSERT_TRUE(IsFilled(p, block->second.size, block->second.tag));
      if (random() % 2 == 0) {
        const size_t size = 1 + random() % (16 * kMiB);
        char *q = Resize(p, size);
        ASSERT_NE(q, nullptr);
        ASSERT_TRUE(IsFilled(q, std::min(size, block->second.size), block->second.tag));
        const uint64_t old_tag = block->second.tag;
        live.erase(block);
        Fill(q, size, old_tag);
        live[q] = {size, old_tag};
      } else {
        live.erase(block);
        Free(p);
      }
    }
    for (auto a = live.begin(); a != live.end(); ++a) {
      auto b = std::next(a);
      if (b != live.end()) {
        ASSERT_LE(a->first + hak_huge_usable_size(a->first), b->first);
      }
    }
    hak_os_fake_advance_ms(random() % 50);
    if (i % 100 == 0) hak_huge_trim(&heap_, 10 * kMiB);
  }
  for (const auto &[p, block] : live) Free(p);
}

class HugePageSizeTest : public HugeTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(HugePageSizeTest, BlocksAreWholePages) {
  Restart(GetParam(), false);
  // The fake stops the test at a range that is not whole pages.
  for (const size_t size : {size_t{1}, 2 * kMiB + 1, 7 * kMiB + 5000}) {
    char *p = Malloc(size);
    EXPECT_EQ(hak_huge_usable_size(p) % GetParam(), 0u);
    p = Resize(p, size * 2);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(hak_huge_usable_size(p) % GetParam(), 0u);
    p = Resize(p, size / 3);
    EXPECT_EQ(hak_huge_usable_size(p) % GetParam(), 0u);
    Free(p);
  }
}

INSTANTIATE_TEST_SUITE_P(PageSizes, HugePageSizeTest, ::testing::Values(4 * kKiB, 16 * kKiB, 64 * kKiB));

// Threads

TEST_F(HugeTest, ThreadsThatHandBlocksAroundKeepThemIntact) {
  constexpr int kSlots = 8;
  struct Slot {
    std::mutex lock;
    char *p = nullptr;
    size_t size = 0;
    uint64_t tag = 0;
  };
  std::vector<Slot> slots(kSlots);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      for (int i = 0; i < 200; ++i) {
        size_t size = 2 * kMiB + random() % (6 * kMiB);
        const uint64_t tag = random();
        char *p = Malloc(size);
        ASSERT_NE(p, nullptr);
        Fill(p, size, tag);
        if (random() % 2 == 0) {
          const size_t new_size = 2 * kMiB + random() % (9 * kMiB);
          p = Resize(p, new_size);
          ASSERT_NE(p, nullptr);
          ASSERT_TRUE(IsFilled(p, std::min(size, new_size), tag));
          size = new_size;
          Fill(p, size, tag);
        }
        Slot &slot = slots[random() % kSlots];
        char *old;
        {
          std::lock_guard<std::mutex> lock(slot.lock);
          old = slot.p;
          if (old != nullptr) {
            ASSERT_TRUE(IsFilled(old, slot.size, slot.tag));
          }
          slot.p = p;
          slot.size = size;
          slot.tag = tag;
        }
        if (old != nullptr) Free(old);
        if (i % 50 == 0) hak_huge_trim(&heap_, 8 * kMiB);
        hak_os_fake_advance_ms(10);
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  for (Slot &slot : slots) {
    if (slot.p != nullptr) Free(slot.p);
  }
}

TEST_F(HugeTest, TheLockMayBeTakenAndGivenBackAroundAFork) {
  hak_huge_lock(&heap_);
  EXPECT_EQ(pthread_mutex_trylock(&heap_.lock.mutex), EBUSY);
  hak_huge_unlock(&heap_);
  EXPECT_EQ(pthread_mutex_trylock(&heap_.lock.mutex), 0);
  pthread_mutex_unlock(&heap_.lock.mutex);
}

// Misuse

std::string Message(const char *function, const void *p, const char *reason) {
  char address[32];
  std::snprintf(address, sizeof address, "0x%lx", reinterpret_cast<unsigned long>(p));
  return std::string("\\[HAKMEM\\] FATAL: ") + function + "\\(" + address + "\\): " + reason + "\n";
}

TEST_F(HugeDeathTest, ADoubleFreeIsFoundWhileTheMappingIsCached) {
  char *p = Malloc(10 * kMiB);
  Free(p);
  EXPECT_STREQ(hak_huge_misuse_reason(&heap_, p), HAK_MISUSE_DOUBLE_FREE);
  EXPECT_DEATH(Free(p), Message("free", p, HAK_MISUSE_DOUBLE_FREE));
}

TEST_F(HugeDeathTest, AnInteriorPointerIsNotTheStartOfABlock) {
  char *p = Malloc(10 * kMiB);
  EXPECT_EQ(hak_huge_usable_size(p + 16), 0u);
  for (const size_t offset : {size_t{1}, size_t{16}, 64 * kKiB, 2 * kMiB, 10 * kMiB - 1}) {
    EXPECT_STREQ(hak_huge_misuse_reason(&heap_, p + offset), HAK_MISUSE_NOT_START);
  }
  EXPECT_DEATH(Free(p + 16), Message("free", p + 16, HAK_MISUSE_NOT_START));
  EXPECT_DEATH(hak_huge_misuse(&heap_, "realloc", p + 2 * kMiB),
               Message("realloc", p + 2 * kMiB, HAK_MISUSE_NOT_START));
  Free(p);
}

TEST_F(HugeDeathTest, WhatTheHeapDoesNotKnowIsForeign) {
  char *p = Malloc(10 * kMiB);
  int on_stack = 0;
  EXPECT_EQ(hak_huge_misuse_reason(&heap_, &on_stack), nullptr);
  EXPECT_EQ(hak_huge_misuse_reason(&heap_, p), nullptr);
  EXPECT_EQ(hak_huge_misuse_reason(&heap_, nullptr), nullptr);
  EXPECT_DEATH(hak_huge_misuse(&heap_, "free", &on_stack), HAK_MISUSE_FOREIGN);
  Free(p);
}

}  // namespace

#include "huge/huge.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/atomic.h"
#include "platform/os_fake.h"
#include "platform/report.h"
#include "superslab/layout.h"
#include "superslab/registry.h"
#include "superslab/test_registry.h"

namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kGiB = 1024 * kMiB;
constexpr uint64_t kDecayMs = HAK_POOL_PURGE_DELAY_MS;

// A tier over the fake operating system. At the end nothing may be left.
class HugeTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(4 * kKiB, false); }
  void TearDown() override { Stop(); }

  void Start(size_t page_bytes, bool diet) {
    hak_os_fake_reset(page_bytes);
    hak_pool_init(&pool_, hak_os_fake());
    pool_.retain.min_bytes = 64 * kGiB;  // the limits of the tier itself are tested
    hak_huge_init(&heap_, &pool_, diet);
    // The regions that the blocks are likely to lie in are there from now on, and no leak.
    char *p = Malloc(4 * kGiB);
    for (size_t offset = 0; offset <= 4 * kGiB; offset += kGiB) hak_registry_cover(hak_os_fake(), Address(p + offset));
    Free(p);
    hak_huge_destroy(&heap_);
    hak_huge_init(&heap_, &pool_, diet);
    base_bytes_ = hak_os_fake_mapped_bytes();
    base_covers_ = hak_test::CountCovers();
  }

  void Stop() {
    hak_os_fake_succeed();
    EXPECT_EQ(heap_.n_live, 0u);
    EXPECT_EQ(heap_.live_bytes, 0u);
    hak_huge_destroy(&heap_);
    EXPECT_EQ(heap_.n_cached, 0u);
    EXPECT_EQ(heap_.cached_bytes, 0u);
    if (!may_leak_) {
      EXPECT_EQ(Mapped(), 0u) << "bytes were not unmapped";
      EXPECT_EQ(hak_test::CountCovers(), base_covers_);
    }
    EXPECT_EQ(pool_.retain.limit.held_bytes, 0u);
    hak_pool_destroy(&pool_);
  }

  void Restart(size_t page_bytes, bool diet) {
    Stop();
    Start(page_bytes, diet);
  }

  static uintptr_t Address(const void *p) { return reinterpret_cast<uintptr_t>(p); }

  // Bytes of mappings, but for regions of the registry that were added since the start.
  size_t Mapped() const {
    const size_t bytes = hak_os_fake_mapped_bytes() - base_bytes_;
    return bytes % sizeof(hak_region) == 0 ? 0 : bytes;
  }

  char *Malloc(size_t size, size_t alignment = 16, bool *zeroed = nullptr) {
    return static_cast<char *>(hak_huge_malloc(&heap_, size, alignment, zeroed));
  }
  void Free(void *p) { hak_huge_free(&heap_, p); }
  char *Resize(void *p, size_t size, bool may_move = true) {
    return static_cast<char *>(hak_huge_resize(&heap_, p, size, may_move));
  }

  hak_pool pool_;
  hak_huge_heap heap_;
  size_t base_bytes_ = 0;
  uint64_t base_covers_ = 0;
  bool may_leak_ = false;
};

using HugeDeathTest = HugeTest;

constexpr size_t kStep = 64 * kKiB;

// A word in every step tells the block and the place.
void Fill(char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size; i += kStep) {
    const uint64_t word = tag * 0x9e3779b97f4a7c15u + i;
    std::memcpy(p + i, &word, 8);
  }
}

::testing::AssertionResult IsFilled(const char *p, size_t size, uint64_t tag) {
  for (size_t i = 0; i + 8 <= size; i += kStep) {
    uint64_t word;
    std::memcpy(&word, p + i, 8);
    if (word != tag * 0x9e3779b97f4a7c15u + i) return ::testing::AssertionFailure() << "at offset " << i;
  }
  return ::testing::AssertionSuccess();
}

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

TEST_F(HugeTest, LargeZeroedRequestsGetFreshMemorySoThatNothingIsTouchedToClearIt) {
  char *p = Malloc(48 * kMiB);
  std::memset(p, 1, 48 * kMiB);
  Free(p);
  bool zeroed = false;
  char *q = Malloc(48 * kMiB, 16, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(std::count(q, q + 48 * kMiB, 0), static_cast<ptrdiff_t>(48 * kMiB));
  Free(q);
}

// The cache

TEST_F(HugeTest, WhatIsBeyondWhatTheProcessKeepsLeavesAtOnceUntilItIsMissed) {
  pool_.retain.min_bytes = 4 * kMiB;
  Free(Malloc(10 * kMiB));
  EXPECT_EQ(heap_.cached_bytes, 0u);
  EXPECT_EQ(Mapped(), 0u);
  for (int i = 0; i < 3; ++i) {
    char *p = Malloc(10 * kMiB);
    Free(p);
    EXPECT_EQ(heap_.cached_bytes, 10 * kMiB) << "it would have been needed again";
  }
}

TEST_F(HugeTest, AFreedMappingServesTheNextRequestWithoutASystemCall) {
  char *p = Malloc(10 * kMiB);
  Free(p);
  const size_t calls = hak_os_fake_count(HAK_OS_FAKE_ANY);
  for (int i = 0; i < 100; ++i) {
    char *q = Malloc(10 * kMiB - i * kKiB);
    EXPECT_EQ(q, p);
    Free(q);
  }
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_ANY), calls);
}

TEST_F(HugeTest, AddressSpaceIsUsedAgainWhereNothingIsCached) {
  Stop();
  Start(4 * kKiB, true);
  char *p = Malloc(10 * kMiB);
  Free(p);
  for (int i = 0; i < 100; ++i) {
    char *q = Malloc(10 * kMiB);
    EXPECT_EQ(q, p);
    Free(q);
  }
}

TEST_F(HugeTest, TheSmallestCachedMappingThatIsLargeEnoughIsTaken) {
  char *p20 = Malloc(20 * kMiB);
  char *p10 = Malloc(10 * kMiB);
  char *p12 = Malloc(12 * kMiB);
  Free(p20);
  Free(p12);
  Free(p10);
  EXPECT_EQ(Malloc(11 * kMiB), p12);
  EXPECT_EQ(Malloc(10 * kMiB), p10);
  EXPECT_EQ(Malloc(19 * kMiB), p20);
  for (char *p : {p10, p12, p20}) Free(p);
}

TEST_F(HugeTest, AMuchLargerCachedMappingIsSplitAndBothPartsAreUsed) {
  char *p = Malloc(20 * kMiB);
  Fill(p, 20 * kMiB, 1);
  Free(p);
  const size_t maps = hak_os_fake_count(HAK_OS_FAKE_MAP);
  char *head = Malloc(8 * kMiB);
  char *tail = Malloc(12 * kMiB);
  EXPECT_EQ(head, p);
  EXPECT_EQ(tail, p + 8 * kMiB);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_MAP), maps);
  Fill(head, 8 * kMiB, 2);
  Fill(tail, 12 * kMiB, 3);
  EXPECT_TRUE(IsFilled(head, 8 * kMiB, 2));
  EXPECT_TRUE(IsFilled(tail, 12 * kMiB, 3));
  Free(head);
  Free(tail);
}

TEST_F(HugeTest, PartsThatAreFreedBecomeOneMappingAgain) {
  char *p = Malloc(24 * kMiB);
  Free(p);
  char *parts[] = {Malloc(4 * kMiB + 1), Malloc(6 * kMiB), Malloc(10 * kMiB)};
  EXPECT_EQ(parts[0], p);
  EXPECT_EQ(parts[1], p + 6 * kMiB);
  EXPECT_EQ(parts[2], p + 12 * kMiB);
  Free(parts[1]);
  Free(parts[0]);
  Free(parts[2]);
  EXPECT_EQ(heap_.n_cached, 1u);
  EXPECT_EQ(heap_.cached_bytes, 24 * kMiB);
  EXPECT_EQ(Malloc(24 * kMiB), p);
  Free(p);
}

TEST_F(HugeTest, NeighboursFromDifferentMappingsStayApartSinceTheKernelWouldNotMoveThemAsOne) {
  char *p = Malloc(4 * kMiB);
  char *q = Malloc(4 * kMiB);
  Free(p);
  Free(q);
  EXPECT_EQ(heap_.n_cached, 2u);
}

TEST_F(HugeTest, NoMoreThanAnEighthBeyondTheRequestHoldsOldPages) {
  for (int round = 0; round < 2; ++round) {
    char *p = Malloc(20 * kMiB);
    std::memset(p, 1, 20 * kMiB);
    Free(p);
    char *q = Malloc(4 * kMiB + 1);
    EXPECT_EQ(q, p);
    const size_t usable = hak_huge_usable_size(q);
    EXPECT_LE(usable, 6 * kMiB);
    EXPECT_EQ(std::count(q + 4 * kMiB + 4096, q + usable, 0), static_cast<ptrdiff_t>(usable - 4 * kMiB - 4096));
    Free(q);
    char *r = Malloc(19 * kMiB);
    EXPECT_EQ(r, p);
    EXPECT_EQ(hak_huge_usable_size(r), 20 * kMiB);
    Free(r);
  }
}

TEST_F(HugeTest, ASmallerCachedMappingIsGrownSoThatItsPagesAreUsedAgain) {
  char *p = Malloc(16 * kMiB);
  std::memset(p, 1, 16 * kMiB);
  Free(p);
  bool zeroed = true;
  char *q = Malloc(20 * kMiB);
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(heap_.n_cached, 0u);
  // Fresh pages would be zero.
  EXPECT_EQ(std::count(q, q + 16 * kMiB, 1), static_cast<ptrdiff_t>(16 * kMiB));
  EXPECT_EQ(std::count(q + 16 * kMiB, q + 20 * kMiB, 0), static_cast<ptrdiff_t>(4 * kMiB));
  Free(q);
  // For zeroed memory that would not do.
  q = Malloc(30 * kMiB, 16, &zeroed);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(q[0], 0);
  Free(q);
}

TEST_F(HugeTest, TheCacheIsBoundedInBytesAndInNumber) {
  std::vector<char *> blocks;
  for (int i = 0; i < 40; ++i) blocks.push_back(Malloc(10 * kMiB));
  for (char *p : blocks) Free(p);
  EXPECT_LE(heap_.cached_bytes, 64 * kMiB);
  hak_huge_trim(&heap_, 0);
  blocks.clear();
  for (int i = 0; i < 80; ++i) blocks.push_back(Malloc(4 * kKiB));
  for (char *p : blocks) Free(p);
  EXPECT_LE(heap_.n_cached, 32u);
  EXPECT_GE(heap_.n_cached, 16u);
}

TEST_F(HugeTest, TheCacheGrowsWithADemandThatALargerOneWouldMeet) {
  char *p = Malloc(100 * kMiB);
  Free(p);
  EXPECT_EQ(heap_.n_cached, 0u);
  p = Malloc(100 * kMiB);
  Free(p);
  EXPECT_EQ(heap_.n_cached, 1u);
  const size_t calls = hak_os_fake_count(HAK_OS_FAKE_ANY);
  EXPECT_EQ(Malloc(100 * kMiB), p);
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_ANY), calls);
  Free(p);
  // And returns to its first size when the demand is gone.
  hak_os_fake_advance_ms(kDecayMs);
  hak_huge_tick(&heap_);
  p = Malloc(100 * kMiB);
  Free(p);
  EXPECT_EQ(heap_.n_cached, 0u);
}

TEST_F(HugeTest, CachedMappingsLeaveAfterTheDecayTimeAndNotBefore) {
  Free(Malloc(10 * kMiB));
  hak_os_fake_advance_ms(kDecayMs - 1);
  hak_huge_tick(&heap_);
  EXPECT_EQ(heap_.n_cached, 1u);
  hak_os_fake_advance_ms(1);
  hak_huge_tick(&heap_);
  EXPECT_EQ(heap_.n_cached, 0u);
  EXPECT_EQ(Mapped(), 0u);
}

TEST_F(HugeTest, DecayIsDrivenByMallocAndByFree) {
  char *other = Malloc(2 * kMiB);
  Free(Malloc(30 * kMiB));
  hak_os_fake_advance_ms(kDecayMs);
  Free(other);
  EXPECT_EQ(heap_.cached_bytes, 2 * kMiB);
  hak_os_fake_advance_ms(kDecayMs);
  char *p = Malloc(3 * kMiB, 64 * kMiB);  // nothing cached is so aligned, most of the time
  Free(p);
  EXPECT_LE(heap_.n_cached, 1u);
}

TEST_F(HugeTest, TrimUnmapsTheLongestUnusedAndKeepsWhatItIsToldToKeep) {
  char *p = Malloc(10 * kMiB);
  char *q = Malloc(20 * kMiB);
  Free(p);
  Free(q);
  EXPECT_EQ(hak_huge_trim(&heap_, 20 * kMiB), 10 * kMiB);
  EXPECT_EQ(hak_huge_trim(&heap_, 20 * kMiB), 0u);
  EXPECT_EQ(Malloc(20 * kMiB), q);
  Free(q);
  EXPECT_EQ(hak_huge_trim(&heap_, 0), 20 * kMiB);
}

TEST_F(HugeTest, OnADietNothingIsCached) {
  Restart(4 * kKiB, true);
  for (int i = 0; i < 5; ++i) Free(Malloc(10 * kMiB));
  EXPECT_EQ(heap_.n_cached, 0u);
  EXPECT_EQ(Mapped(), 0u);
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

// Running out

// One short life; what failed is skipped, all else is checked and freed.
void RunOnce(hak_huge_heap *heap) {
  std::mt19937_64 random(11);
  std::vector<std::pair<char *, size_t>> live;
  for (int i = 0; i < 60; ++i) {
    const size_t size = 2 * kMiB + random() % (6 * kMiB);
    char *p = static_cast<char *>(hak_huge_malloc(heap, size, random() % 4 == 0 ? 4 * kMiB : 16, nullptr));
    if (p != nullptr) {
      Fill(p, size, 1);
      live.emplace_back(p, size);
    }
    if (!live.empty()) {
      auto &[q, old_size] = live[random() % live.size()];
      const size_t new_size = 1 * kMiB + random() % (9 * kMiB);
      char *moved = static_cast<char *>(hak_huge_resize(heap, q, new_size, true));
      if (moved != nullptr) {
        ASSERT_TRUE(IsFilled(moved, std::min(old_size, new_size), 1));
        Fill(moved, new_size, 1);
        q = moved;
        old_size = new_size;
      }
      ASSERT_TRUE(IsFilled(q, old_size, 1));
      ASSERT_GE(hak_huge_usable_size(q), old_size);
    }
    if (live.size() > 4) {
      hak_huge_free(heap, live.front().first);
      live.erase(live.begin());
    }
    hak_os_fake_advance_ms(100);
  }
  for (const auto &block : live) hak_huge_free(heap, block.first);
}

struct Failure {
  const char *name;
  hak_os_fake_call call;
  bool may_leak;
};

class HugeFailureTest : public HugeTest, public ::testing::WithParamInterface<Failure> {};

TEST_P(HugeFailureTest, NothingIsLostWhenAnyOneCallFailsOrAllFromThereOn) {
  const hak_os_fake_call call = GetParam().call;
  may_leak_ = GetParam().may_leak;
  const size_t before = hak_os_fake_count(call);
  RunOnce(&heap_);
  const size_t n_calls = hak_os_fake_count(call) - before;
  ASSERT_GT(n_calls, 5u);
  for (const size_t count : {size_t{1}, SIZE_MAX}) {
    for (size_t nth = 1; nth <= n_calls; nth += 1 + n_calls / 40) {
      Restart(4 * kKiB, false);
      hak_os_fake_fail(call, nth, count);
      RunOnce(&heap_);
      hak_os_fake_succeed();
      ASSERT_EQ(heap_.n_live, 0u);
      char *p = Malloc(8 * kMiB);
      ASSERT_NE(p, nullptr) << "no full service again after call " << nth;
      Free(p);
    }
  }
}

// hak_os_map_aligned cannot give back what the kernel will not take.
INSTANTIATE_TEST_SUITE_P(Calls, HugeFailureTest,
                         ::testing::Values(Failure{"map", HAK_OS_FAKE_MAP, false},
                                           Failure{"remap", HAK_OS_FAKE_REMAP, false},
                                           Failure{"unmap", HAK_OS_FAKE_UNMAP, true}),
                         [](const auto &test) { return std::string(test.param.name); });

TEST_F(HugeTest, AMappingThatCannotBeUnmappedIsKeptWithoutItsPagesAndUsedAgain) {
  char *p = Malloc(10 * kMiB);
  std::memset(p, 1, 10 * kMiB);
  Free(p);
  hak_os_fake_fail(HAK_OS_FAKE_UNMAP, 1, SIZE_MAX);
  EXPECT_EQ(hak_huge_trim(&heap_, 0), 10 * kMiB);
  EXPECT_EQ(heap_.n_cached, 1u);
  hak_os_fake_succeed();
  bool zeroed = false;
  char *q = Malloc(10 * kMiB, 16, &zeroed);
  EXPECT_EQ(q, p);
  EXPECT_TRUE(zeroed);
  EXPECT_EQ(q[0], 0);
  Free(q);
}

TEST_F(HugeTest, AMappingThatTheRegistryHasNoMemoryForIsGivenBack) {
  uintptr_t region = 0x7ea000000000;
  while (hak_load_relaxed(&hak_registry.region_offset[region >> HAK_REGION_SHIFT]) != 0) region += 4 * kGiB;
  heap_.last_mapped = region + kGiB;
  const size_t mapped = hak_os_fake_mapped_bytes();
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 2, 1);
  EXPECT_EQ(Malloc(2 * kMiB), nullptr);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), mapped);
  hak_os_fake_succeed();
  char *p = Malloc(2 * kMiB);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), mapped + sizeof(hak_region) + 2 * kMiB);
  Free(p);
}

TEST_F(HugeTest, WhenTheSystemRefusesTheCacheMakesRoom) {
  Free(Malloc(10 * kMiB));
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, 1);
  // Aligned so that the cached mapping does not serve.
  char *p = nullptr;
  for (size_t alignment = 4 * kMiB; p == nullptr && alignment < 64 * kGiB; alignment *= 2)
    p = Malloc(2 * kMiB, alignment);
  EXPECT_NE(p, nullptr);
  Free(p);
}

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
  hak_huge_unlock(&heap_);
  Free(Malloc(2 * kMiB));
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

// AddressSanitizer knows the blocks of hakmem: what it reports of a program that uses them wrongly.
#include <gtest/gtest.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "router/hakmem.h"

namespace {

char Read(const void *address) { return *static_cast<const volatile char *>(address); }

const char *At(const void *p, size_t offset) { return static_cast<const char *>(p) + offset; }

// What the report says of an access to `address`.
std::string Report(const void *address) {
  char text[100];
  snprintf(text, sizeof text, "use-after-poison on address 0x0*%lx ", reinterpret_cast<unsigned long>(address));
  return text;
}

bool IsPoisoned(const void *address) { return __asan_address_is_poisoned(address) != 0; }

struct Tier {
  const char *name;
  size_t size;        // a request of this tier
  size_t other_size;  // another, of another class
};

class PoisonTest : public testing::TestWithParam<Tier> {
 protected:
  // So that the freed block of Huge stays, and what is handed out next was never handed out before.
  void SetUp() override { hak_trim(0); }

  void *Malloc(size_t size) {
    void *p = hak_malloc(size);
    EXPECT_STREQ(hak_owner(p), GetParam().name);
    return p;
  }
  size_t size_ = GetParam().size;
};

TEST_P(PoisonTest, FreedBlock) {
  char *p = static_cast<char *>(Malloc(size_));
  memset(p, 1, size_);
  hak_free(p);
  EXPECT_DEATH(Read(p + size_ / 2), Report(p + size_ / 2));
  for (size_t i = 0; i < size_; ++i) ASSERT_TRUE(IsPoisoned(p + i)) << i;
}

// Of many, which fill slabs and caches, each takes its own way back.
TEST_P(PoisonTest, EachOfManyFreedBlocks) {
  std::vector<void *> blocks;
  size_t n = size_ > 1 << 20 ? 10 : 200;
  for (size_t i = 0; i < n; ++i) blocks.push_back(memset(Malloc(size_), 1, size_));
  for (void *p : blocks) hak_free(p);
  for (void *p : blocks) {
    // What has left the process is no more poisoned, and may be another's.
    EXPECT_TRUE(hak_owner(p) == nullptr || (IsPoisoned(p) && IsPoisoned(At(p, size_ - 1)))) << p;
  }
  for (void *&p : blocks) p = memset(Malloc(size_), 2, size_);
  for (void *p : blocks) hak_free(p);
}

TEST_P(PoisonTest, BlockThatAnotherThreadHasFreed) {
  char *p = static_cast<char *>(Malloc(size_));
  std::thread([p] { hak_free(p); }).join();
  EXPECT_DEATH(Read(p), Report(p));
  EXPECT_TRUE(IsPoisoned(p + size_ - 1));
  // By one that has a heap of its own.
  p = static_cast<char *>(Malloc(size_));
  std::thread([this, p] {
    void *own = Malloc(size_);
    hak_free(p);
    EXPECT_TRUE(IsPoisoned(p) && IsPoisoned(p + size_ - 1));
    hak_free(own);
  }).join();
}

TEST_P(PoisonTest, BeyondTheSize) {
  for (size_t size : {size_, size_ - 1, size_ - 13}) {
    char *p = static_cast<char *>(Malloc(size));
    memset(p, 1, size);
    void *other = Malloc(size);
    size_t usable = hak_usable_size(other);
    for (size_t i = size; i < usable; ++i) EXPECT_TRUE(IsPoisoned(p + i)) << size << ' ' << i;
    hak_free(p);
    hak_free(other);
  }
  char *p = static_cast<char *>(Malloc(size_ - 13));
  EXPECT_DEATH(Read(p + size_ - 8), Report(p + size_ - 8));
  hak_free(p);
}

TEST_P(PoisonTest, WhoAsksForTheUsableSizeMayUseIt) {
  char *p = static_cast<char *>(Malloc(size_ - 5));
  memset(p, 1, hak_usable_size(p));
  hak_free(p);
  EXPECT_TRUE(IsPoisoned(p + size_ - 1));
}

TEST_P(PoisonTest, NeverAllocated) {
  if (std::string(GetParam().name) == "huge") GTEST_SKIP() << "each is a mapping of its own";
  char *p = static_cast<char *>(Malloc(GetParam().other_size));
  char *end = p + hak_usable_size(p);
  EXPECT_DEATH(Read(end), Report(end));
  for (size_t i = 0; i < GetParam().other_size; ++i) ASSERT_TRUE(IsPoisoned(end + i)) << i;
  hak_free(p);
}

TEST_P(PoisonTest, ReallocMakesSmallerAndLarger) {
  char *p = static_cast<char *>(Malloc(size_));
  memset(p, 1, size_);
  // So little that a block of Huge keeps its last pages.
  size_t smaller = size_ - (size_ < 1000 ? 50 : 1000);
  char *q = static_cast<char *>(hak_realloc(p, smaller));
  ASSERT_EQ(q[smaller - 1], 1);
  EXPECT_TRUE(IsPoisoned(q + smaller));
  q = static_cast<char *>(hak_realloc(q, size_));
  memset(q + smaller, 2, size_ - smaller);
  // To half, which may be in place or not. What is beyond is no block's.
  char *half = static_cast<char *>(hak_realloc(q, size_ / 2));
  EXPECT_TRUE(hak_owner(q + size_ / 2) == nullptr || IsPoisoned(q + size_ - 1));
  q = static_cast<char *>(hak_realloc(half, size_));
  memset(q, 2, size_);
  // So small that the block moves, and so large.
  for (size_t size : {size_ / 100, 3 * size_}) {
    char *old = q;
    q = static_cast<char *>(hak_realloc(q, size));
    memset(q, 3, size);
    // What has left the process is no more poisoned.
    EXPECT_TRUE(q == old || hak_owner(old) == nullptr || IsPoisoned(old));
  }
  hak_free(q);
}

TEST_P(PoisonTest, CallocAndAlignedAlloc) {
  char *p = static_cast<char *>(hak_calloc(1, size_));
  EXPECT_EQ(Read(p + size_ - 1), 0);
  char *q = static_cast<char *>(hak_aligned_alloc(64, size_ - 5));
  memset(q, 1, size_ - 5);
  hak_free(p);
  EXPECT_TRUE(IsPoisoned(p));
  hak_free(q);
  EXPECT_TRUE(IsPoisoned(q));
}

// Whoever maps what hakmem has unmapped finds it usable.
TEST_P(PoisonTest, UnmappedMemoryIsNotPoisoned) {
  std::vector<void *> blocks;
  for (size_t i = 0; i < (16 << 20) / size_ + 1; ++i) blocks.push_back(Malloc(size_ - 5));
  // One that leaves its place for another, perhaps.
  char *old = static_cast<char *>(blocks.back());
  blocks.back() = hak_realloc(old, 3 * size_);
  EXPECT_TRUE(blocks.back() == old || hak_owner(old) != nullptr || !IsPoisoned(old + size_ - 5));
  for (void *p : blocks) hak_free(p);
  hak_trim(0);
  size_t n_unmapped = 0;
  for (void *p : blocks) {
    char *page = reinterpret_cast<char *>(reinterpret_cast<uintptr_t>(p) & ~uintptr_t{4095});
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    if (mmap(page, 4096, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) continue;
    ++n_unmapped;
    memset(page, 1, 4096);
    munmap(page, 4096);
  }
  EXPECT_GT(n_unmapped, 0u);
}

INSTANTIATE_TEST_SUITE_P(Tiers, PoisonTest,
                         testing::Values(Tier{"tiny", 200, 1000}, Tier{"mid", 6000, 30000}, Tier{"ace", 100000, 300000},
                                         Tier{"huge", 3 << 20, 0}),
                         [](const testing::TestParamInfo<Tier> &tier) { return std::string(tier.param.name); });

}  // namespace

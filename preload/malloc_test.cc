// The malloc family as a preloaded program sees it. preload_test and its like run it.
#include <errno.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <stdint.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "preload/test_preload.h"
#include "preload/test_process.h"

namespace {

using hak_test::ExpectFrees;
using hak_test::Fill;
using hak_test::Function;
using hak_test::Holds;
using hak_test::IsAligned;
using hak_test::kGiB;
using hak_test::kKiB;
using hak_test::kMiB;
using hak_test::kPtrdiffMax;
using hak_test::kSizes;
using hak_test::kTierSizes;
using hak_test::Opaque;
using hak_test::Owner;
using hak_test::TierOf;
using hak_test::Unknown;

TEST(Malloc, OfZeroGivesABlockOfItsOwn) {
  void *a = Opaque(malloc(0));
  void *b = Opaque(malloc(0));
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_NE(a, b);
  free(a);
  free(b);
}

TEST(Malloc, AlignsEveryBlockTo16Bytes) {
  std::vector<void *> blocks;
  for (size_t size = 0; size <= 4096; ++size) {
    blocks.push_back(malloc(size));
    ASSERT_NE(blocks.back(), nullptr);
    EXPECT_TRUE(IsAligned(blocks.back(), 16)) << size;
  }
  for (void *p : blocks) free(p);
}

TEST(Malloc, LiveBlocksDoNotOverlap) {
  std::vector<void *> blocks;
  for (unsigned round = 0; round < 20; ++round) {
    for (size_t size : kSizes) {
      blocks.push_back(malloc(size));
      Fill(blocks.back(), size, static_cast<unsigned>(blocks.size()));
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_TRUE(Holds(blocks[i], kSizes[i % kSizes.size()], static_cast<unsigned>(i + 1))) << i;
  }
  for (void *p : blocks) free(p);
}

TEST(Malloc, RefusesSizesAtAndAbovePtrdiffMaxAndTheProgramGoesOn) {
  for (size_t size : {kPtrdiffMax - 4096, kPtrdiffMax - 1, kPtrdiffMax, kPtrdiffMax + 1, SIZE_MAX - 4096, SIZE_MAX}) {
    errno = 0;
    EXPECT_EQ(Opaque(malloc(size)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(calloc(1, size)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(aligned_alloc(4096, size)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(memalign(64, size)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(valloc(size)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(pvalloc(size)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    void *out = &out;
    EXPECT_EQ(posix_memalign(&out, 64, size), ENOMEM);
    EXPECT_EQ(out, &out);
  }
  void *p = Opaque(malloc(100));
  EXPECT_NE(p, nullptr);
  free(p);
}

TEST(Malloc, KeepsErrnoOnEverySuccess) {
  for (size_t size : kSizes) {
    errno = 77;
    void *p = Opaque(malloc(size));
    p = Opaque(realloc(p, size + 3000));
    p = Opaque(realloc(p, size));
    void *q = Opaque(calloc(1, size));
    q = Opaque(reallocarray(q, 2, size));
    void *out = nullptr;
    EXPECT_EQ(posix_memalign(&out, 128, size), 0);
    const std::vector<void *> blocks = {p,
                                        q,
                                        out,
                                        aligned_alloc(256, size),
                                        memalign(8192, size),
                                        valloc(size),
                                        pvalloc(size),
                                        ::operator new(size, std::nothrow)};
    for (void *block : blocks) (void)malloc_usable_size(block);
    malloc_trim(0);
    EXPECT_EQ(errno, 77) << size;
    for (void *block : blocks) free(block);
    EXPECT_EQ(errno, 77) << size;
  }
}

TEST(Calloc, RefusesAProductThatOverflows) {
  for (size_t n : {SIZE_MAX / 2 + 1, SIZE_MAX / 8 + 1, SIZE_MAX}) {
    errno = 0;
    EXPECT_EQ(Opaque(calloc(n, 8)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(calloc(8, n)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
  }
}

TEST(Calloc, OfZeroGivesABlock) {
  for (auto [n, size] : {std::pair<size_t, size_t>{0, 0}, {0, 8}, {8, 0}}) {
    void *p = Opaque(calloc(n, size));
    EXPECT_NE(p, nullptr);
    free(p);
  }
}

TEST(Calloc, ZeroesBlocksThatWereUsedBefore) {
  for (size_t size : kSizes) {
    std::vector<void *> used;
    for (int i = 0; i < 4; ++i) {
      used.push_back(Opaque(malloc(size)));
      memset(used.back(), 0xff, size);
    }
    for (void *p : used) free(p);
    for (int i = 0; i < 4; ++i) {
      used[static_cast<size_t>(i)] = Opaque(calloc(1, size));
      auto *bytes = static_cast<unsigned char *>(used[static_cast<size_t>(i)]);
      EXPECT_EQ(bytes[0], 0) << size;
      EXPECT_EQ(memcmp(bytes, bytes + 1, size - 1), 0) << size;
    }
    for (void *p : used) free(p);
  }
}

TEST(Realloc, KeepsContentAcrossEveryTierBorderBothWays) {
  for (size_t from : kSizes) {
    for (size_t to : kSizes) {
      void *p = Opaque(malloc(from));
      Fill(p, from, 9);
      p = Opaque(realloc(p, to));
      ASSERT_NE(p, nullptr);
      EXPECT_TRUE(Holds(p, from < to ? from : to, 9)) << from << " -> " << to;
      EXPECT_GE(malloc_usable_size(p), to);
      memset(p, 1, to);
      free(p);
    }
  }
}

TEST(Realloc, ByAByteMovesNothingLarge) {
  for (size_t size : {100000, 1000000, 10000000}) {
    void *p = Opaque(malloc(size));
    const auto before = reinterpret_cast<uintptr_t>(p);
    p = Opaque(realloc(p, size + 1));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p), before) << size;
    free(p);
  }
}

TEST(Realloc, OfNullIsMalloc) {
  void *p = Opaque(realloc(nullptr, 5000));
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(Owner(p), TierOf(5000));
  free(p);
}

TEST(Realloc, ToZeroFreesAndReturnsNull) {
  for (size_t size : kTierSizes) {
    errno = 77;
    EXPECT_EQ(Opaque(realloc(Opaque(malloc(size)), 0)), nullptr);
    EXPECT_EQ(errno, 77);
  }
}

TEST(Realloc, LeavesTheBlockAloneWhenItFails) {
  for (size_t size : kTierSizes) {
    void *p = Opaque(malloc(size));
    Fill(p, size, 3);
    errno = 0;
    EXPECT_EQ(Opaque(realloc(Opaque(p), Unknown(kPtrdiffMax + 1))), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(realloc(Opaque(p), Unknown(kPtrdiffMax))), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(Opaque(reallocarray(Opaque(p), Unknown(SIZE_MAX / 2), 3)), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_TRUE(Holds(p, size, 3)) << size;
    free(p);
  }
}

TEST(Reallocarray, GrowsToTheProduct) {
  void *p = Opaque(reallocarray(nullptr, 10, 10));
  Fill(p, 100, 4);
  p = Opaque(reallocarray(p, 1000, 10));
  EXPECT_GE(malloc_usable_size(p), 10000u);
  EXPECT_TRUE(Holds(p, 100, 4));
  free(p);
}

TEST(Aligned, EveryPowerOfTwoUpTo1GiBIsHonoured) {
  for (size_t alignment = 1; alignment <= kGiB; alignment *= 2) {
    for (size_t size : {size_t{0}, size_t{1}, size_t{24}, size_t{1000}, 5 * kKiB, 100 * kKiB, 3 * kMiB}) {
      std::vector<void *> blocks = {Opaque(aligned_alloc(alignment, size)), Opaque(memalign(alignment, size)),
                                    Opaque(aligned_alloc(alignment, size))};
      void *out = nullptr;
      if (alignment >= sizeof(void *)) {
        ASSERT_EQ(posix_memalign(&out, alignment, size), 0);
        blocks.push_back(out);
      }
      blocks.push_back(::operator new (size, std::align_val_t{alignment}));
      for (size_t i = 0; i < blocks.size(); ++i) {
        ASSERT_NE(blocks[i], nullptr);
        EXPECT_TRUE(IsAligned(blocks[i], alignment)) << alignment << " " << size;
        EXPECT_NE(Owner(blocks[i]), "");
        Fill(blocks[i], size, static_cast<unsigned>(i));
      }
      for (size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_TRUE(Holds(blocks[i], size, static_cast<unsigned>(i))) << alignment << " " << size;
        free(blocks[i]);
      }
    }
  }
}

TEST(Aligned, ABlockCanBeResized) {
  for (size_t alignment : {size_t{64}, size_t{4096}, 2 * kMiB}) {
    void *p = Opaque(aligned_alloc(alignment, 100));
    Fill(p, 100, 6);
    p = Opaque(realloc(p, 10000));
    EXPECT_TRUE(Holds(p, 100, 6)) << alignment;
    free(p);
  }
}

TEST(Aligned, AnAlignmentBeyondAllMemoryIsRefusedWithEnomem) {
  for (size_t alignment : {size_t{1} << 50, size_t{1} << 62, size_t{1} << 63}) {
    for (size_t size : {size_t{1}, kMiB, kPtrdiffMax}) {
      errno = 0;
      EXPECT_EQ(Opaque(aligned_alloc(Unknown(alignment), size)), nullptr) << alignment;
      EXPECT_EQ(errno, ENOMEM) << alignment;
      errno = 0;
      EXPECT_EQ(Opaque(memalign(Unknown(alignment), size)), nullptr) << alignment;
      EXPECT_EQ(errno, ENOMEM) << alignment;
      void *out = &out;
      EXPECT_EQ(posix_memalign(&out, Unknown(alignment), size), ENOMEM) << alignment;
      EXPECT_EQ(out, &out);
    }
  }
}

TEST(Aligned, AlignedAllocRefusesWhatIsNoPowerOfTwo) {
  for (size_t alignment : {size_t{0}, size_t{3}, size_t{24}, size_t{4097}, SIZE_MAX}) {
    errno = 0;
    EXPECT_EQ(Opaque(aligned_alloc(Unknown(alignment), 100)), nullptr) << alignment;
    EXPECT_EQ(errno, EINVAL) << alignment;
  }
}

TEST(Aligned, MemalignRoundsUpToAPowerOfTwo) {
  for (auto [asked, given] : {std::pair<size_t, size_t>{0, 16}, {1, 16}, {24, 32}, {33, 64}, {4097, 8192}}) {
    void *p = Opaque(memalign(Unknown(asked), 100));
    ASSERT_NE(p, nullptr) << asked;
    EXPECT_TRUE(IsAligned(p, given)) << asked;
    free(p);
  }
  errno = 0;
  EXPECT_EQ(Opaque(memalign(Unknown(SIZE_MAX / 2 + 2), 100)), nullptr);
  EXPECT_EQ(errno, EINVAL);
}

TEST(Aligned, PosixMemalignRefusesBadAlignmentsAndLeavesOutAndErrnoAlone) {
  for (size_t alignment : {size_t{0}, size_t{1}, size_t{4}, size_t{12}, size_t{24}, SIZE_MAX}) {
    void *out = &out;
    errno = 77;
    EXPECT_EQ(posix_memalign(&out, Unknown(alignment), 100), EINVAL) << alignment;
    EXPECT_EQ(out, &out);
    EXPECT_EQ(errno, 77);
  }
}

TEST(Aligned, VallocAndPvallocGivePages) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t size : {size_t{0}, size_t{1}, page, page + 1, 10 * page}) {
    void *p = Opaque(valloc(size));
    void *q = Opaque(pvalloc(size));
    ASSERT_NE(p, nullptr);
    ASSERT_NE(q, nullptr);
    EXPECT_TRUE(IsAligned(p, page));
    EXPECT_TRUE(IsAligned(q, page));
    EXPECT_GE(malloc_usable_size(p), size);
    EXPECT_GE(malloc_usable_size(q), (size + page - 1) / page * page);
    free(p);
    free(q);
  }
}

TEST(Free, KeepsErrno) {
  errno = 77;
  free(nullptr);
  EXPECT_EQ(errno, 77);
  for (size_t size : kSizes) {
    // Many at once, so that caches overflow and memory goes back to the system.
    std::vector<void *> blocks;
    for (int i = 0; i < 40; ++i) blocks.push_back(malloc(size));
    for (void *p : blocks) {
      errno = 77;
      free(p);
      ASSERT_EQ(errno, 77) << size;
    }
  }
}

TEST(Free, SizedFreesEveryBlockAndKeepsErrno) {
  auto *free_sized = Function<void(void *, size_t)>("free_sized");
  ExpectFrees([=](void *p, size_t size) { free_sized(p, size); });
}

TEST(Free, AlignedSizedFreesEveryBlockAndKeepsErrno) {
  auto *free_aligned_sized = Function<void(void *, size_t, size_t)>("free_aligned_sized");
  ExpectFrees([=](void *p, size_t size) { free_aligned_sized(p, 16, size); });
  for (size_t alignment = 1; alignment <= kGiB; alignment *= 2) {
    for (size_t size : kTierSizes) free_aligned_sized(Opaque(aligned_alloc(alignment, size)), alignment, size);
  }
}

TEST(Free, CfreeIsFree) {
  auto *cfree = Function<void(void *)>("cfree");
  ExpectFrees([=](void *p, size_t) { cfree(p); });
}

TEST(UsableSize, IsAtLeastWhatWasAskedForAndWritableToItsLastByte) {
  EXPECT_EQ(malloc_usable_size(nullptr), 0u);
  for (size_t size : kSizes) {
    void *blocks[3];
    for (unsigned i = 0; i < 3; ++i) {
      blocks[i] = Opaque(malloc(size));
      ASSERT_GE(malloc_usable_size(blocks[i]), size);
      Fill(blocks[i], malloc_usable_size(blocks[i]), i);
    }
    for (unsigned i = 0; i < 3; ++i) {
      EXPECT_TRUE(Holds(blocks[i], malloc_usable_size(blocks[i]), i)) << size;
      free(blocks[i]);
    }
  }
}

TEST(UsableSize, OfAlignedAndOfResizedBlocksIsWritableToo) {
  for (size_t size : kSizes) {
    std::vector<void *> blocks;
    for (size_t alignment : {size_t{32}, size_t{512}, 4 * kKiB, 64 * kKiB, 4 * kMiB}) {
      blocks.push_back(Opaque(memalign(alignment, size)));
      blocks.push_back(Opaque(realloc(Opaque(memalign(alignment, size)), size + size / 3)));
      blocks.push_back(Opaque(realloc(Opaque(memalign(alignment, size)), size - size / 3)));
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      Fill(blocks[i], malloc_usable_size(blocks[i]), static_cast<unsigned>(i));
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_TRUE(Holds(blocks[i], malloc_usable_size(blocks[i]), static_cast<unsigned>(i))) << size << " " << i;
      free(blocks[i]);
    }
  }
}

}  // namespace

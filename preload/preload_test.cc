// The malloc family and operator new/delete as a preloaded program sees them.
#include <dlfcn.h>
#include <errno.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <stdint.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory_resource>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::Opaque;
using hak_test::Owner;

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kGiB = 1024 * kMiB;
constexpr size_t kPtrdiffMax = PTRDIFF_MAX;

// On both sides of every tier border, and inside the tiers.
const std::vector<size_t> kSizes = {
    1,     8,         16,    17,         100,      1023,    1024,     1025,    5 * kKiB,
    32767, 32 * kKiB, 32769, 100 * kKiB, 1 * kMiB, 2097151, 2 * kMiB, 2097153, 5 * kMiB,
};

// One size of each tier.
const std::vector<size_t> kTierSizes = {64, 5 * kKiB, 100 * kKiB, 4 * kMiB};

// `n` as a value that the compiler cannot warn about.
size_t Unknown(size_t n) {
  asm volatile("" : "+r"(n));
  return n;
}

void Fill(void *p, size_t size, unsigned seed) {
  auto *bytes = static_cast<unsigned char *>(p);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<unsigned char>(seed + i * 31 + (i >> 8));
}

bool Holds(const void *p, size_t size, unsigned seed) {
  auto *bytes = static_cast<const unsigned char *>(p);
  for (size_t i = 0; i < size; ++i) {
    if (bytes[i] != static_cast<unsigned char>(seed + i * 31 + (i >> 8))) return false;
  }
  return true;
}

bool IsAligned(const void *p, size_t alignment) { return reinterpret_cast<uintptr_t>(p) % alignment == 0; }

// Whether the variable is set to 0: the test is also run with tiers switched off.
bool IsOff(const char *variable) {
  const char *value = getenv(variable);
  return value != nullptr && strcmp(value, "0") == 0;
}

std::string TierOf(size_t size) {
  if (hak_test::IsHardened()) size += 8;  // for the seal
  if (size <= 1024 && !IsOff("HAKMEM_TINY_USE_SUPERSLAB")) return "tiny";
  if (size <= 32 * kKiB) return "mid";
  return size < 2 * kMiB && !IsOff("HAKMEM_ACE_ENABLED") ? "ace" : "huge";
}

TEST(Preload, EveryReplacedFunctionIsTheLibrarys) {
  for (const char *name : {"malloc",
                           "calloc",
                           "realloc",
                           "reallocarray",
                           "free",
                           "posix_memalign",
                           "aligned_alloc",
                           "memalign",
                           "valloc",
                           "pvalloc",
                           "malloc_usable_size",
                           "malloc_trim",
                           "free_sized",
                           "free_aligned_sized",
                           "cfree",
                           "mallinfo",
                           "mallinfo2",
                           "mallopt",
                           "malloc_stats",
                           "malloc_info",
                           "__libc_malloc",
                           "__libc_free",
                           "__libc_calloc",
                           "__libc_realloc",
                           "__libc_memalign",
                           "__libc_valloc",
                           "__libc_pvalloc",
                           "_Znwm",
                           "_Znam",
                           "_ZnwmRKSt9nothrow_t",
                           "_ZnamRKSt9nothrow_t",
                           "_ZnwmSt11align_val_t",
                           "_ZnamSt11align_val_t",
                           "_ZnwmSt11align_val_tRKSt9nothrow_t",
                           "_ZnamSt11align_val_tRKSt9nothrow_t",
                           "_ZdlPv",
                           "_ZdaPv",
                           "_ZdlPvm",
                           "_ZdaPvm",
                           "_ZdlPvRKSt9nothrow_t",
                           "_ZdaPvRKSt9nothrow_t",
                           "_ZdlPvSt11align_val_t",
                           "_ZdaPvSt11align_val_t",
                           "_ZdlPvmSt11align_val_t",
                           "_ZdaPvmSt11align_val_t",
                           "_ZdlPvSt11align_val_tRKSt9nothrow_t",
                           "_ZdaPvSt11align_val_tRKSt9nothrow_t"}) {
    void *function = dlsym(RTLD_DEFAULT, name);
    ASSERT_NE(function, nullptr) << name;
    Dl_info info;
    ASSERT_NE(dladdr(function, &info), 0) << name;
    EXPECT_NE(std::string(info.dli_fname).find("/libhakmem"), std::string::npos) << name << ": " << info.dli_fname;
  }
}

TEST(Preload, MallocServesEverySizeFromItsTier) {
  malloc_trim(0);  // ACE's cache may hold a block of 2 MiB from before, which serves a request for all of it
  for (size_t size : kSizes) {
    void *p = Opaque(malloc(size));
    ASSERT_NE(p, nullptr) << size;
    EXPECT_EQ(Owner(p), TierOf(size)) << size;
    free(p);
  }
}

TEST(Preload, MemoryThatIsNotHakmemsHasNoOwner) {
  int local = 0;
  static int global = 0;
  EXPECT_EQ(Owner(&local), "");
  EXPECT_EQ(Owner(&global), "");
  EXPECT_EQ(Owner(nullptr), "");
  EXPECT_EQ(Owner(reinterpret_cast<void *>(UINTPTR_MAX)), "");
}

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

// All bytes in SuperSlabs and Huge mappings that the program has not given back.
size_t InUse() {
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// A function that the headers may not declare, or that glibc keeps for old programs only.
template <typename F>
F *Function(const char *name) {
  void *function = dlsym(RTLD_DEFAULT, name);
  if (function == nullptr) abort();
  return reinterpret_cast<F *>(function);
}

// 64 MiB of blocks of every size pass through `give_back`, and nothing is left.
template <typename F>
void ExpectFrees(F give_back) {
  give_back(nullptr, 0);
  for (size_t size : kSizes) {
    const size_t before = InUse();
    for (size_t bytes = 0; bytes < 64 * kMiB; bytes += std::max(size, 4 * kKiB)) {
      void *p = Opaque(malloc(size));
      errno = 77;
      give_back(p, size);
      ASSERT_EQ(errno, 77) << size;
    }
    EXPECT_LE(InUse(), before + 4 * kMiB) << size;
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

TEST(Glibc, ItsSecondNamesOfTheFamilyServeFromHakmem) {
  auto *libc_malloc = Function<void *(size_t)>("__libc_malloc");
  auto *libc_calloc = Function<void *(size_t, size_t)>("__libc_calloc");
  auto *libc_realloc = Function<void *(void *, size_t)>("__libc_realloc");
  auto *libc_memalign = Function<void *(size_t, size_t)>("__libc_memalign");
  auto *libc_valloc = Function<void *(size_t)>("__libc_valloc");
  auto *libc_pvalloc = Function<void *(size_t)>("__libc_pvalloc");
  auto *libc_free = Function<void(void *)>("__libc_free");
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (size_t size : kSizes) {
    void *zeroed = libc_calloc(1, size);
    EXPECT_EQ(*static_cast<char *>(zeroed), 0);
    void *resized = libc_malloc(size);
    Fill(resized, size, 2);
    resized = libc_realloc(resized, size + 5000);
    EXPECT_TRUE(Holds(resized, size, 2));
    void *aligned = libc_memalign(1024, size);
    EXPECT_TRUE(IsAligned(aligned, 1024));
    void *on_page = libc_valloc(size);
    EXPECT_TRUE(IsAligned(on_page, page));
    void *pages = libc_pvalloc(size);
    EXPECT_TRUE(IsAligned(pages, page));
    EXPECT_GE(malloc_usable_size(pages), (size + page - 1) / page * page);
    for (void *p : {libc_malloc(size), zeroed, resized, aligned, on_page, pages}) {
      EXPECT_NE(Owner(p), "") << size;
      libc_free(p);
    }
  }
  ExpectFrees([=](void *p, size_t) { libc_free(p); });
  errno = 0;
  EXPECT_EQ(libc_malloc(kPtrdiffMax + 1), nullptr);
  EXPECT_EQ(errno, ENOMEM);
}

TEST(Mallopt, AcceptsWhatIsSoAnywayAndRefusesTheRest) {
  errno = 77;
  EXPECT_EQ(mallopt(M_CHECK_ACTION, 3), 1);
  EXPECT_EQ(mallopt(M_CHECK_ACTION, 7), 1);
  for (int value : {0, 1, 2, 5}) EXPECT_EQ(mallopt(M_CHECK_ACTION, value), 0) << value;
  EXPECT_EQ(mallopt(M_PERTURB, 0), 1);
  EXPECT_EQ(mallopt(M_PERTURB, 0x5a), 0);
  for (int parameter : {M_MXFAST, M_NLBLKS, M_GRAIN, M_KEEP, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX,
                        M_ARENA_TEST, M_ARENA_MAX, 0, 4711, -4711}) {
    for (int value : {-1, 0, 1, 128 * 1024}) EXPECT_EQ(mallopt(parameter, value), 0) << parameter;
  }
  EXPECT_EQ(errno, 77);
  free(Opaque(malloc(100)));
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

TEST(Trim, SaysWhetherMemoryWasReleasedAndHarmsNoLiveBlock) {
  void *live = Opaque(malloc(100 * kKiB));
  Fill(live, 100 * kKiB, 5);
  std::vector<void *> blocks;
  for (int i = 0; i < 1000; ++i) {
    blocks.push_back(malloc(20 * kKiB));
    memset(blocks.back(), 1, 20 * kKiB);
  }
  for (void *p : blocks) free(p);
  int released = malloc_trim(0);
  EXPECT_TRUE(released == 0 || released == 1);
  EXPECT_TRUE(Holds(live, 100 * kKiB, 5));
  free(live);
}

TEST(Libc, ItsOwnAllocationsAreHakmems) {
  char *copy = Opaque(strdup("a string that is copied"));
  EXPECT_EQ(Owner(copy), TierOf(24));
  free(copy);

  char *printed = nullptr;
  ASSERT_GT(asprintf(&printed, "%2000d", 1), 0);
  EXPECT_NE(Owner(printed), "");
  free(printed);

  char *line = nullptr;
  size_t capacity = 0;
  FILE *file = fopen("/proc/self/status", "r");
  ASSERT_NE(file, nullptr);
  ASSERT_GT(getline(&line, &capacity, file), 0);
  EXPECT_NE(Owner(line), "");
  free(line);
  fclose(file);

  char *start = Opaque(strndup("a string that is cut off", 8));
  EXPECT_EQ(Owner(start), TierOf(9));
  EXPECT_STREQ(start, "a string");
  free(start);

  char *path = Opaque(realpath("/proc/self/../self", nullptr));
  EXPECT_NE(Owner(path), "");
  EXPECT_EQ(path[0], '/');
  free(path);

  char *directory = Opaque(getcwd(nullptr, 0));
  EXPECT_NE(Owner(directory), "");
  free(directory);

  // Grows over all tiers.
  char *text = nullptr;
  size_t length = 0;
  FILE *stream = open_memstream(&text, &length);
  ASSERT_NE(stream, nullptr);
  for (size_t i = 0; i < 3 * kMiB / 16; ++i) fputs("sixteen letters.", stream);
  fclose(stream);
  EXPECT_EQ(length, 3 * kMiB);
  EXPECT_EQ(Owner(text), "huge");
  EXPECT_EQ(std::string(text + length - 16), "sixteen letters.");
  free(text);
}

TEST(Threads, BlocksArePassedOnAndOutliveTheirThread) {
  constexpr unsigned kThreads = 4;
  constexpr unsigned kBlocks = 2000;
  std::vector<std::vector<void *>> made(kThreads, std::vector<void *>(kBlocks));
  auto size_of = [](unsigned i) { return i % 50 == 0 ? kSizes[i / 50 % kSizes.size()] : i % 3000 + 1; };

  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < kBlocks; ++i) {
        made[t][i] = malloc(size_of(i));
        Fill(made[t][i], size_of(i), t * 100 + i);
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  threads.clear();

  std::vector<unsigned> broken(kThreads);
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      unsigned maker = (t + 1) % kThreads;
      for (unsigned i = 0; i < kBlocks; ++i) {
        if (!Holds(made[maker][i], size_of(i), maker * 100 + i)) ++broken[t];
        free(made[maker][i]);
        free(Opaque(malloc(size_of(i))));
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(broken, std::vector<unsigned>(kThreads));
}

// Operator new.

constexpr auto kAlignment = std::align_val_t{256};

// Every form of new with its deletes; each block is hakmem's.
TEST(New, EveryFormServesAndEveryFormOfDeleteTakesBack) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{64}, 5 * kKiB, 100 * kKiB, 4 * kMiB}) {
    auto next = [size](void *p, size_t alignment = 16) {
      p = Opaque(p);
      EXPECT_NE(Owner(p), "") << size;
      EXPECT_TRUE(IsAligned(p, alignment)) << size;
      Fill(p, size, 1);
      return p;
    };
    ::operator delete(next(::operator new(size)));
    ::operator delete(next(::operator new(size)), size);
    ::operator delete(next(::operator new(size, std::nothrow)), std::nothrow);
    ::operator delete[](next(::operator new[](size)));
    ::operator delete[](next(::operator new[](size)), size);
    ::operator delete[](next(::operator new[](size, std::nothrow)), std::nothrow);
    ::operator delete(next(::operator new(size, kAlignment), 256), kAlignment);
    ::operator delete(next(::operator new(size, kAlignment), 256), size, kAlignment);
    ::operator delete(next(::operator new(size, kAlignment, std::nothrow), 256), kAlignment, std::nothrow);
    ::operator delete[](next(::operator new[](size, kAlignment), 256), kAlignment);
    ::operator delete[](next(::operator new[](size, kAlignment), 256), size, kAlignment);
    ::operator delete[](next(::operator new[](size, kAlignment, std::nothrow), 256), kAlignment, std::nothrow);
  }
  ::operator delete(nullptr);
  ::operator delete[](nullptr);
}

TEST(Pmr, ItsResourcesTakeAlignedMemoryFromHakmem) {
  std::pmr::memory_resource *resource = std::pmr::new_delete_resource();
  EXPECT_EQ(std::pmr::get_default_resource(), resource);
  for (size_t size : kSizes) {
    for (size_t alignment : {size_t{1}, size_t{16}, size_t{64}, 4 * kKiB, 4 * kMiB}) {
      void *p = Opaque(resource->allocate(size, alignment));
      EXPECT_NE(Owner(p), "") << size;
      EXPECT_TRUE(IsAligned(p, alignment)) << size << " " << alignment;
      Fill(p, size, 7);
      EXPECT_TRUE(Holds(p, size, 7));
      resource->deallocate(p, size, alignment);
    }
  }
  std::pmr::synchronized_pool_resource pools;
  std::pmr::monotonic_buffer_resource buffer(&pools);
  std::pmr::vector<std::pmr::string> texts(&buffer);
  for (size_t i = 0; i < 1000; ++i) texts.emplace_back(i, 'x');
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(texts[i].size(), i);
    EXPECT_NE(Owner(texts[i].data()), "") << i;
  }
}

// Larger than any address space, below PTRDIFF_MAX.
const size_t kTooLarge = Unknown(size_t{1} << 60);

TEST(New, ThrowsBadAllocWhenMemoryHasRunOut) {
  std::set_new_handler(nullptr);
  EXPECT_THROW(Opaque(::operator new(kTooLarge)), std::bad_alloc);
  EXPECT_THROW(Opaque(::operator new[](kTooLarge)), std::bad_alloc);
  EXPECT_THROW(Opaque(::operator new(kTooLarge, kAlignment)), std::bad_alloc);
  EXPECT_THROW(Opaque(::operator new[](kTooLarge, kAlignment)), std::bad_alloc);
  std::vector<char> bytes;
  EXPECT_THROW(bytes.reserve(kTooLarge); Opaque(&bytes), std::bad_alloc);
}

TEST(New, RefusesSizesAtAndAbovePtrdiffMax) {
  std::set_new_handler(nullptr);
  for (size_t size : {kPtrdiffMax - 1, kPtrdiffMax, kPtrdiffMax + 1, SIZE_MAX - 4096, SIZE_MAX}) {
    EXPECT_THROW(Opaque(::operator new(size)), std::bad_alloc) << size;
    EXPECT_EQ(Opaque(::operator new(size, std::nothrow)), nullptr) << size;
    for (size_t alignment : {size_t{64}, 4 * kKiB, kGiB, size_t{1} << 63}) {
      EXPECT_THROW(Opaque(::operator new (size, std::align_val_t{alignment})), std::bad_alloc) << size;
      EXPECT_THROW(Opaque(::operator new[](size, std::align_val_t{alignment})), std::bad_alloc) << size;
      EXPECT_EQ(Opaque(::operator new (size, std::align_val_t{alignment}, std::nothrow)), nullptr) << size;
      EXPECT_EQ(Opaque(::operator new[](size, std::align_val_t{alignment}, std::nothrow)), nullptr) << size;
    }
  }
}

TEST(New, NothrowFormsReturnNullWhenMemoryHasRunOut) {
  std::set_new_handler(nullptr);
  EXPECT_EQ(Opaque(::operator new(kTooLarge, std::nothrow)), nullptr);
  EXPECT_EQ(Opaque(::operator new[](kTooLarge, std::nothrow)), nullptr);
  EXPECT_EQ(Opaque(::operator new(kTooLarge, kAlignment, std::nothrow)), nullptr);
  EXPECT_EQ(Opaque(::operator new[](kTooLarge, kAlignment, std::nothrow)), nullptr);
}

unsigned handler_calls;

// Gives up at the third call, as the standard lets a handler do.
void ThreeTimes() {
  if (++handler_calls == 3) std::set_new_handler(nullptr);
}

void Throwing() {
  ++handler_calls;
  throw std::bad_alloc();
}

template <typename F>
unsigned HandlerCalls(std::new_handler handler, F allocate) {
  handler_calls = 0;
  std::set_new_handler(handler);
  allocate();
  std::set_new_handler(nullptr);
  return handler_calls;
}

TEST(New, CallsTheNewHandlerUntilItGivesUp) {
  EXPECT_EQ(HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new(kTooLarge)), std::bad_alloc); }), 3u);
  EXPECT_EQ(HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new[](kTooLarge)), std::bad_alloc); }), 3u);
  EXPECT_EQ(
      HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new(kTooLarge, kAlignment)), std::bad_alloc); }),
      3u);
  EXPECT_EQ(
      HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new[](kTooLarge, kAlignment)), std::bad_alloc); }),
      3u);
  EXPECT_EQ(HandlerCalls(ThreeTimes, [] { EXPECT_EQ(Opaque(::operator new(kTooLarge, std::nothrow)), nullptr); }), 3u);
}

TEST(New, TriesAgainAfterTheNewHandler) {
  // The handler makes the request one that can be served, which stands for freeing memory.
  static void *reserve;
  reserve = nullptr;
  std::set_new_handler([] {
    std::set_new_handler(nullptr);
    reserve = Opaque(::operator new(64));
  });
  EXPECT_THROW(Opaque(::operator new(kTooLarge)), std::bad_alloc);
  EXPECT_NE(Owner(reserve), "");
  ::operator delete(reserve);
}

TEST(New, WhatAHandlerThrowsPassesThroughTheThrowingForms) {
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_THROW(Opaque(::operator new(kTooLarge)), std::bad_alloc); }), 1u);
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_THROW(Opaque(::operator new[](kTooLarge)), std::bad_alloc); }), 1u);
}

TEST(New, WhatAHandlerThrowsMakesTheNothrowFormsReturnNull) {
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new(kTooLarge, std::nothrow)), nullptr); }), 1u);
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new[](kTooLarge, std::nothrow)), nullptr); }), 1u);
  EXPECT_EQ(
      HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new(kTooLarge, kAlignment, std::nothrow)), nullptr); }),
      1u);
  EXPECT_EQ(
      HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new[](kTooLarge, kAlignment, std::nothrow)), nullptr); }),
      1u);
}

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

// The allocator as a whole, through its public functions.
#include <errno.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/compiler.h"
#include "platform/delay.h"
#include "platform/report.h"
#include "router/hakmem.h"

// In C a function and a struct may share a name.
#include "router/process.h"

#if defined(__SANITIZE_ADDRESS__)
constexpr const char *kSanitizer = "address";
#elif defined(__SANITIZE_THREAD__)
constexpr const char *kSanitizer = "thread";
#else
constexpr const char *kSanitizer = nullptr;
#endif

namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kGiB = 1024 * kMiB;

// Sizes at and around every border between tiers, and some within each.
const size_t kSizes[] = {0,           1,    16,       17,           100,           1023,         1024,
                         1025,        1152, 1153,     5000,         32 * kKiB - 1, 32 * kKiB,    32 * kKiB + 1,
                         100 * kKiB,  kMiB, kMiB + 1, 2 * kMiB - 1, 2 * kMiB,      2 * kMiB + 1, 3 * kMiB,
                         8 * kMiB + 5};

const char *TierOf(size_t size) {
  if (HAK_CONFIG_HARDENED) size += 8;  // for the seal
  if (size <= 1024) return "tiny";
  if (size <= 32 * kKiB) return "mid";
  return size < 2 * kMiB ? "ace" : "huge";
}

// A content that tells every byte from its neighbours and every block from the others.
unsigned char ByteAt(size_t i, size_t seed) { return static_cast<unsigned char>(i * 31 + i / 251 + seed); }

// Every byte of the first pages, and enough of each cache line behind them.
template <typename F>
void ForEachByte(size_t bytes, F f) {
  for (size_t i = 0; i < bytes; i += i < 8192 ? 1 : 61) f(i);
}

void Fill(void *p, size_t bytes, size_t seed) {
  ForEachByte(bytes, [=](size_t i) { static_cast<unsigned char *>(p)[i] = ByteAt(i, seed); });
}

bool IsFilled(const void *p, size_t bytes, size_t seed) {
  bool same = true;
  ForEachByte(bytes, [&](size_t i) { same &= static_cast<const unsigned char *>(p)[i] == ByteAt(i, seed); });
  return same;
}

bool IsZero(const void *p, size_t bytes) {
  const auto *b = static_cast<const unsigned char *>(p);
  return bytes == 0 || (b[0] == 0 && memcmp(b, b + 1, bytes - 1) == 0);
}

uintptr_t Address(const void *p) { return reinterpret_cast<uintptr_t>(p); }

// Runs `f` in a child process, which is to return true.
template <typename F>
void ExpectInChild(F f) {
  pid_t child = fork();
  ASSERT_NE(child, -1);
  if (child == 0) _exit(f() ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// The address space in use, which also holds what the tests' own malloc has reserved.
size_t AddressSpaceBytes() {
  size_t pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == nullptr || fscanf(file, "%zu", &pages) != 1) abort();
  fclose(file);
  return pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// Sizes and tiers

TEST(Router, EverySizeComesFromItsTierAndIsUsableToItsLastByte) {
  for (size_t size : kSizes) {
    void *p = hak_malloc(size);
    ASSERT_NE(p, nullptr) << size;
    EXPECT_STREQ(hak_owner(p), TierOf(size)) << size;
    EXPECT_EQ(Address(p) % 16, 0u);
    size_t usable = hak_usable_size(p);
    ASSERT_GE(usable, size);
    memset(p, 0xee, usable);
    hak_free(p);
  }
}

TEST(Router, BlocksAreApartWhateverTheirTier) {
  std::vector<void *> blocks;
  for (int round = 0; round < 5; ++round) {
    for (size_t size : kSizes) {
      blocks.push_back(hak_malloc(size));
      Fill(blocks.back(), hak_usable_size(blocks.back()), blocks.size());
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_TRUE(IsFilled(blocks[i], hak_usable_size(blocks[i]), i + 1)) << i;
    hak_free(blocks[i]);
  }
}

TEST(Router, SizeZeroGivesABlockOfItsOwn) {
  std::set<void *> blocks;
  for (int i = 0; i < 300; ++i) EXPECT_TRUE(blocks.insert(i % 2 == 0 ? hak_malloc(0) : hak_calloc(0, 7)).second);
  EXPECT_EQ(blocks.count(nullptr), 0u);
  for (void *p : blocks) hak_free(p);
}

TEST(Router, OwnsNeitherForeignNorImpossibleAddressesAndNoFreedOnes) {
  int on_stack = 0;
  void *foreign = malloc(100);
  for (const void *p : {static_cast<const void *>(&on_stack), static_cast<const void *>(foreign),
                        static_cast<const void *>(kSizes), static_cast<const void *>(nullptr)}) {
    EXPECT_EQ(hak_owner(p), nullptr);
  }
  for (int bit = 0; bit < 64; ++bit) EXPECT_EQ(hak_owner(reinterpret_cast<void *>(uintptr_t{1} << bit)), nullptr);
  free(foreign);
  char *huge = static_cast<char *>(hak_malloc(8 * kMiB));
  EXPECT_STREQ(hak_owner(huge + 5 * kMiB), "huge");
  hak_free(huge);
  EXPECT_EQ(hak_owner(huge), nullptr);
  EXPECT_EQ(hak_owner(huge + 5 * kMiB), nullptr);
}

// realloc

TEST(Router, ReallocKeepsTheContentOverEveryPairOfSizes) {
  for (size_t from : kSizes) {
    for (size_t to : kSizes) {
      if (to == 0) continue;
      void *p = hak_malloc(from);
      Fill(p, from, from + to);
      void *q = hak_realloc(p, to);
      ASSERT_NE(q, nullptr);
      ASSERT_TRUE(IsFilled(q, std::min(from, to), from + to)) << from << " -> " << to;
      ASSERT_GE(hak_usable_size(q), to);
      hak_free(q);
    }
  }
}

TEST(Router, ReallocGrowsAndShrinksAgainOverAllTiers) {
  std::vector<size_t> steps(std::begin(kSizes) + 1, std::end(kSizes));
  for (size_t i = steps.size(); i-- != 0;) steps.push_back(steps[i]);
  size_t kept = 1;
  void *p = hak_malloc(1);
  Fill(p, 1, 0);
  for (size_t size : steps) {
    p = hak_realloc(p, size);
    ASSERT_TRUE(IsFilled(p, std::min(kept, size), 0)) << size;
    Fill(p, size, 0);
    kept = size;
  }
  hak_free(p);
}

TEST(Router, ReallocOfNullAllocatesAndToZeroFrees) {
  void *p = hak_realloc(nullptr, 100);
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(hak_realloc(p, 0), nullptr);
  EXPECT_EXIT(hak_free(p), ::testing::KilledBySignal(SIGABRT), "double free");
}

TEST(Router, ReallocThatFailsLeavesTheBlockAlone) {
  for (size_t size : kSizes) {
    void *p = hak_malloc(size);
    Fill(p, size, size);
    for (size_t impossible : {SIZE_MAX, SIZE_MAX / 2 + 1, size_t{1} << 60}) {
      errno = 0;
      EXPECT_EQ(hak_realloc(p, impossible), nullptr);
      EXPECT_EQ(errno, ENOMEM);
    }
    errno = 0;
    EXPECT_EQ(hak_reallocarray(p, SIZE_MAX / 8, 16), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    EXPECT_TRUE(IsFilled(p, size, size));
    hak_free(p);
  }
}

// calloc

TEST(Router, CallocIsZeroAlsoWhereMemoryWasUsedBefore) {
  for (size_t size : kSizes) {
    for (int round = 0; round < 4; ++round) {
      void *p = hak_calloc(1, size);
      ASSERT_NE(p, nullptr);
      EXPECT_TRUE(IsZero(p, size)) << size;
      memset(p, 0xff, hak_usable_size(p));
      hak_free(p);
      if (round == 2) hak_trim(0);
    }
  }
}

size_t MinorFaults() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_minflt);
}

TEST(Router, CallocOfAGiBTouchesNothing) {
  if (kSanitizer != nullptr) GTEST_SKIP() << kSanitizer << " sanitizer writes as much of its own as an eighth of it";
  // Freed with content just before, and kept for the next request.
  void *used = hak_malloc(48 * kMiB);
  memset(used, 0xff, 48 * kMiB);
  hak_free(used);
  for (size_t size : {48 * kMiB, kGiB}) {
    const size_t faults = MinorFaults();
    auto *p = static_cast<unsigned char *>(hak_calloc(1, size));
    EXPECT_LT(MinorFaults() - faults, 64u) << size;
    ASSERT_NE(p, nullptr);
    for (size_t i = 0; i < size; i += kMiB) ASSERT_EQ(p[i], 0);
    hak_free(p);
  }
}

TEST(Router, ReallocOfAHugeBlockMovesItWithoutACopy) {
  if (kSanitizer != nullptr) GTEST_SKIP() << kSanitizer << " sanitizer writes as much of its own as an eighth of it";
  auto *p = static_cast<unsigned char *>(hak_malloc(16 * kMiB));
  Fill(p, 16 * kMiB, 3);
  size_t faults = 0;
  unsigned n_moves = 0;
  std::vector<void *> neighbours;
  for (size_t size = 20 * kMiB; size <= 80 * kMiB; size += 20 * kMiB) {
    neighbours.push_back(hak_malloc(2 * kMiB));
    const size_t before = MinorFaults();
    auto *q = static_cast<unsigned char *>(hak_realloc(p, size));
    faults += MinorFaults() - before;
    ASSERT_NE(q, nullptr);
    n_moves += q != p;
    p = q;
  }
  EXPECT_GT(n_moves, 0u) << "nothing was to be shown";
  EXPECT_LT(faults, 256u) << "16 MiB are 4,096 pages";
  EXPECT_TRUE(IsFilled(p, 16 * kMiB, 3));
  hak_free(p);
  for (void *neighbour : neighbours) hak_free(neighbour);
}

size_t Mappings() {
  std::ifstream maps("/proc/self/maps");
  return static_cast<size_t>(std::count(std::istreambuf_iterator<char>(maps), {}, '\n'));
}

// Their pages are not touched, so that 4 GiB cost no more than their descriptors. What ACE does not have enough of
// is //bench:footprint_guard_test's: blocks of Tiny and Mid.
TEST(Router, NeedsFewMappingsForFourGiBOfLiveBlocks) {
  if (kSanitizer != nullptr) GTEST_SKIP() << kSanitizer << " sanitizer has mappings of its own for each of ours";
  const size_t before = Mappings();
  std::mt19937 random(1);
  auto size = [&] { return (33 + random() % 1900) * kKiB; };
  std::vector<std::pair<void *, size_t>> blocks;
  size_t live = 0;
  for (int i = 0; live < 4 * kGiB || i < 20000; ++i) {
    if (live < 4 * kGiB) {
      size_t bytes = size();
      blocks.emplace_back(hak_malloc(bytes), bytes);
      ASSERT_NE(blocks.back().first, nullptr);
      live += bytes;
    } else {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      hak_free(blocks.back().first);
      live -= blocks.back().second;
      blocks.pop_back();
    }
  }
  EXPECT_LT(Mappings(), before + 1000);
  for (auto &[p, bytes] : blocks) hak_free(p);
  hak_trim(0);
}

TEST(Router, CallocAndReallocarrayRefuseAProductThatOverflows) {
  const size_t pairs[][2] = {{SIZE_MAX, 2}, {2, SIZE_MAX}, {size_t{1} << 32, size_t{1} << 32}, {SIZE_MAX / 16 + 1, 16}};
  for (auto [n, size] : pairs) {
    errno = 0;
    EXPECT_EQ(hak_calloc(n, size), nullptr);
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(hak_reallocarray(nullptr, n, size), nullptr);
    EXPECT_EQ(errno, ENOMEM);
  }
}

// errno

TEST(Router, ARefusedRequestSetsEnomemAndTheProgramGoesOn) {
  for (size_t size : {SIZE_MAX, SIZE_MAX - 4096, SIZE_MAX / 2 + 1, SIZE_MAX / 2, size_t{1} << 48}) {
    errno = 0;
    EXPECT_EQ(hak_malloc(size), nullptr) << size;
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(hak_calloc(1, size), nullptr) << size;
    EXPECT_EQ(errno, ENOMEM);
    errno = 0;
    EXPECT_EQ(hak_aligned_alloc(64, size), nullptr) << size;
    EXPECT_EQ(errno, ENOMEM);
  }
  void *p = hak_malloc(100);
  EXPECT_NE(p, nullptr);
  hak_free(p);
}

TEST(Router, SuccessAndFreeKeepErrno) {
  errno = 4711;
  for (size_t size : kSizes) {
    void *p = hak_malloc(size);
    p = hak_realloc(p, size + size / 2 + 1);
    hak_free(p);
    p = hak_calloc(3, size);
    hak_free(p);
    p = hak_aligned_alloc(4096, size);
    hak_free(p);
    hak_free(nullptr);
  }
  hak_trim(0);
  EXPECT_EQ(errno, 4711);
}

// Alignment

TEST(Router, EveryAlignmentToOneGiBIsServedForEverySize) {
  for (size_t alignment = 1; alignment <= kGiB; alignment *= 2) {
    for (size_t size :
         {size_t{0}, size_t{1}, alignment / 2, alignment, alignment + 1, size_t{100}, 40 * kKiB, 3 * kMiB}) {
      if (size > 4 * kMiB) continue;
      void *p = hak_aligned_alloc(alignment, size);
      ASSERT_NE(p, nullptr) << size << " at " << alignment;
      ASSERT_EQ(Address(p) % alignment, 0u) << size;
      ASSERT_GE(hak_usable_size(p), size);
      memset(p, 1, size);
      void *moved = hak_realloc(p, 2 * size + 1);
      ASSERT_NE(moved, nullptr);
      hak_free(moved);
    }
  }
}

TEST(Router, AnAlignmentThatIsNoPowerOfTwoIsRefused) {
  for (size_t alignment : {size_t{0}, size_t{3}, size_t{24}, SIZE_MAX}) {
    errno = 0;
    EXPECT_EQ(hak_aligned_alloc(alignment, 100), nullptr);
    EXPECT_EQ(errno, EINVAL);
  }
}

TEST(Router, AnAlignmentBeyondAllMemoryIsRefused) {
  for (size_t alignment : {size_t{1} << 63, size_t{1} << 62, size_t{1} << 50}) {
    errno = 0;
    EXPECT_EQ(hak_aligned_alloc(alignment, 100), nullptr) << alignment;
    EXPECT_EQ(errno, ENOMEM);
  }
}

TEST(Router, PosixMemalignAnswersByItsResultAndKeepsErrno) {
  errno = 4711;
  void *p = &p;
  EXPECT_EQ(hak_posix_memalign(&p, 4, 100), EINVAL);
  EXPECT_EQ(hak_posix_memalign(&p, 24, 100), EINVAL);
  EXPECT_EQ(hak_posix_memalign(&p, 0, 100), EINVAL);
  EXPECT_EQ(hak_posix_memalign(&p, 64, SIZE_MAX / 2 + 1), ENOMEM);
  EXPECT_EQ(p, &p);
  EXPECT_EQ(hak_posix_memalign(&p, 8, 100), 0);
  EXPECT_NE(p, &p);
  EXPECT_EQ(errno, 4711);
  hak_free(p);
}

// Misuse

TEST(RouterMisuse, AForeignPointerStopsWithALineThatNamesIt) {
  int on_stack = 0;
  static int in_data;
  auto line = [](const void *p) {
    char text[256];
    snprintf(text, sizeof text, "^\\[HAKMEM\\] FATAL: free\\(%p\\): " HAK_MISUSE_ELSEWHERE "\n$", p);
    return std::string(text);
  };
  for (void *p : {static_cast<void *>(&on_stack), static_cast<void *>(&in_data), reinterpret_cast<void *>(16),
                  reinterpret_cast<void *>(uintptr_t{1} << 63), reinterpret_cast<void *>((uintptr_t{1} << 63) + 64),
                  reinterpret_cast<void *>(uintptr_t{1} << 47), reinterpret_cast<void *>(~uintptr_t{15})}) {
    EXPECT_EXIT(hak_free(p), ::testing::KilledBySignal(SIGABRT), line(p));
  }
}

TEST(RouterMisuse, AnImmediateDoubleFreeStopsInEveryTier) {
  for (size_t size : kSizes) {
    void *p = hak_malloc(size);
    hak_free(p);
    EXPECT_EXIT(hak_free(p), ::testing::KilledBySignal(SIGABRT), "FATAL: free\\(0x[0-9a-f]+\\): ") << size;
  }
}

TEST(RouterMisuse, AFreeOfWhatReallocHasMovedStops) {
  for (size_t size : kSizes) {
    void *p = hak_malloc(size);
    void *moved = hak_realloc(p, 4 * size + 100);
    if (moved != p) {
      EXPECT_EXIT(hak_free(p), ::testing::KilledBySignal(SIGABRT), "FATAL: free\\(0x[0-9a-f]+\\): ") << size;
    }
    hak_free(moved);
  }
}

TEST(RouterMisuse, AnUnalignedPointerStopsInEveryTier) {
  for (size_t size : kSizes) {
    auto *p = static_cast<char *>(hak_malloc(size));
    EXPECT_EXIT(hak_free(p + 8), ::testing::KilledBySignal(SIGABRT), "FATAL: free\\(0x[0-9a-f]+\\): ") << size;
    hak_free(p);
  }
}

// Trim

TEST(Router, TrimReturnsPagesOnceAndLeavesWhatIsLive) {
  hak_trim(0);
  std::vector<void *> blocks;
  for (size_t i = 0; i < 40000; ++i) blocks.push_back(memset(hak_malloc(700), 1, 700));
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i % 1000 != 0) hak_free(blocks[i]);
  }
  EXPECT_GT(hak_trim(0), 0u);
  EXPECT_EQ(hak_trim(0), 0u);
  for (size_t i = 0; i < blocks.size(); i += 1000) {
    EXPECT_EQ(*static_cast<char *>(blocks[i]), 1);
    hak_free(blocks[i]);
  }
}

// Statistics

struct hak_stats Stats() {
  struct hak_stats stats;
  hak_stats_read(&stats);
  EXPECT_LE(stats.ace_free_bytes, stats.ace_bytes);
  EXPECT_LE(stats.ace_bytes, stats.slab_bytes);
  EXPECT_LE(stats.slab_bytes, stats.superslab_bytes);
  EXPECT_EQ(stats.superslab_bytes % (2 * kMiB), 0u);
  return stats;
}

TEST(RouterStats, EveryBlockOfTheSlabTiersIsInSlabsInUse) {
  for (size_t size : {size_t{700}, 20 * kKiB, 500 * kKiB}) {
    hak_trim(0);
    const struct hak_stats before = Stats();
    const size_t total = 32 * kMiB;
    std::vector<void *> blocks;
    for (size_t bytes = 0; bytes < total; bytes += size) blocks.push_back(hak_malloc(size));
    const struct hak_stats full = Stats();
    // What was free in slabs in use before may have served a part.
    EXPECT_GE(full.slab_bytes - full.ace_free_bytes, before.slab_bytes - before.ace_free_bytes + total - 4 * kMiB)
        << size;
    EXPECT_LE(full.slab_bytes - full.ace_free_bytes, before.slab_bytes - before.ace_free_bytes + total * 5 / 4) << size;
    if (strcmp(TierOf(size), "ace") == 0) {
      EXPECT_GE(full.ace_bytes, before.ace_bytes + total - 4 * kMiB);
    } else {
      EXPECT_EQ(full.ace_bytes, before.ace_bytes);
    }
    EXPECT_EQ(full.n_huge, before.n_huge);
    EXPECT_EQ(full.huge_bytes, before.huge_bytes);
    for (void *p : blocks) hak_free(p);
    hak_trim(0);
    const struct hak_stats after = Stats();
    EXPECT_LE(after.slab_bytes - after.ace_free_bytes, before.slab_bytes - before.ace_free_bytes + 4 * kMiB) << size;
    EXPECT_LE(after.superslab_bytes, before.superslab_bytes + 4 * kMiB) << size;
  }
}

TEST(RouterStats, HugeBlocksAreCountedAndAfterFreeInTheCacheUntilATrim) {
  hak_trim(0);
  const struct hak_stats before = Stats();
  EXPECT_EQ(before.huge_cached_bytes, 0u);
  void *a = hak_malloc(3 * kMiB);
  void *b = hak_malloc(5 * kMiB);
  struct hak_stats now = Stats();
  EXPECT_EQ(now.n_huge, before.n_huge + 2);
  EXPECT_EQ(now.huge_bytes, before.huge_bytes + 8 * kMiB);
  b = hak_realloc(b, 9 * kMiB);
  EXPECT_EQ(Stats().huge_bytes, before.huge_bytes + 12 * kMiB);
  hak_free(a);
  now = Stats();
  EXPECT_EQ(now.n_huge, before.n_huge + 1);
  EXPECT_EQ(now.huge_bytes, before.huge_bytes + 9 * kMiB);
  EXPECT_EQ(now.huge_cached_bytes, 3 * kMiB);
  hak_free(b);
  hak_trim(0);
  now = Stats();
  EXPECT_EQ(now.huge_bytes, before.huge_bytes);
  EXPECT_EQ(now.huge_cached_bytes, 0u);
}

TEST(RouterStats, NoNumberContradictsAnotherWhileThreadsAllocate) {
  std::atomic<bool> stop{false};
  std::atomic<unsigned> n_rounds{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      // Whole SuperSlabs come and go.
      std::vector<void *> blocks(20);
      while (!stop) {
        for (void *&p : blocks) p = hak_malloc(random() % 8 == 0 ? kSizes[random() % std::size(kSizes)] : 1900 * kKiB);
        for (void *p : blocks) hak_free(p);
        hak_trim(0);
        ++n_rounds;
      }
    });
  }
  while (n_rounds < 300) (void)Stats();
  stop = true;
  for (std::thread &thread : threads) thread.join();
}

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

// Running out

TEST(RouterOutOfMemory, ServesEverySizeAgainAfterMemoryWasFreed) {
  if (kSanitizer != nullptr) GTEST_SKIP() << kSanitizer << " sanitizer needs more address space than a limit leaves";
  for (size_t filler : {size_t{64}, size_t{20000}, 200 * kKiB, 5 * kMiB}) {
    SCOPED_TRACE(filler);
    ExpectInChild([filler] {
      rlim_t bytes = AddressSpaceBytes() + 300 * kMiB;
      rlimit limit = {bytes, bytes};
      if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
      for (int round = 0; round < 2; ++round) {
        void *all = nullptr;  // linked through their first bytes
        size_t n = 0;
        errno = 0;
        for (void *p; (p = hak_malloc(filler)) != nullptr; ++n) {
          *static_cast<void **>(p) = all;
          all = p;
        }
        if (errno != ENOMEM || n * filler < 100 * kMiB) {
          fprintf(stderr, "round %d: refused after %zu bytes, errno %d\n", round, n * filler, errno);
          return false;
        }
        while (all != nullptr) {
          void *next = *static_cast<void **>(all);
          hak_free(all);
          all = next;
        }
        for (size_t size : kSizes) {
          void *p = hak_malloc(size);
          if (p == nullptr) {
            fprintf(stderr, "round %d: no block of %zu bytes\n", round, size);
            return false;
          }
          hak_free(p);
        }
      }
      return true;
    });
  }
}

}  // namespace

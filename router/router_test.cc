// The allocator as a whole, through its public functions.
#include <errno.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/poison.h"
#include "platform/report.h"
#include "router/hakmem.h"
#include "router/test_router.h"

#if defined(__SANITIZE_ADDRESS__)
constexpr const char *kSanitizer = "address";
#elif defined(__SANITIZE_THREAD__)
constexpr const char *kSanitizer = "thread";
#else
constexpr const char *kSanitizer = nullptr;
#endif

namespace {

using hak_test::ExpectInChild;
using hak_test::Fill;
using hak_test::IsFilled;
using hak_test::IsZero;
using hak_test::kGiB;
using hak_test::kKiB;
using hak_test::kMiB;
using hak_test::kSizes;
using hak_test::TierOf;

const auto kPageBytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));

uintptr_t Address(const void *p) { return reinterpret_cast<uintptr_t>(p); }

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

// A freed block of ACE that is as long as that, but was asked for with a little less, is none for it.
TEST(Router, TwoMebibytesComeFromHugeWhateverAceHasCached) {
  constexpr size_t kHugeMin = size_t{2} << 20;
  // So many that the cache may hold one.
  std::vector<void *> below;
  for (int i = 0; i < 64; ++i) {
    below.push_back(hak_malloc(kHugeMin - 64));
    EXPECT_STREQ(hak_owner(below.back()), "ace");
    hak_free(hak_malloc(kHugeMin - 64));
  }
  void *p = hak_malloc(kHugeMin);
  EXPECT_STREQ(hak_owner(p), "huge");
  hak_free(p);
  for (void *block : below) hak_free(block);
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

TEST(Router, ReallocToHalfOfAPowerOfTwoKeepsTheBlock) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "with its seal such a size has a larger block";
  for (size_t size = 64; size <= 32 * kKiB; size *= 2) {
    void *p = hak_malloc(size);
    EXPECT_EQ(hak_realloc(p, size / 2), p) << size;
    EXPECT_EQ(hak_realloc(p, size), p) << size;
    hak_free(p);
  }
}

TEST(Router, ReallocOfTheSmallestBlockKeepsIt) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "with its seal it is not the smallest";
  void *p = hak_malloc(16);
  for (size_t size = 16; size != 0; --size) EXPECT_EQ(hak_realloc(p, size), p) << size;
  hak_free(p);
}

// From 1 byte to 32 KiB there are a hundred sizes of blocks.
TEST(Router, ReallocByOneByteMovesTheBlockOnceInAQuarterOfIt) {
  if (HAK_CONFIG_HARDENED || HAK_POISON) GTEST_SKIP() << "a block ends where the program has said";
  void *p = hak_malloc(1);
  int n_moves = 0;
  for (size_t size = 2; size <= 32 * kKiB; ++size) {
    void *old = p;
    const size_t old_bytes = hak_usable_size(p);
    p = hak_realloc(p, size);
    n_moves += p != old ? 1 : 0;
    ASSERT_LE(hak_usable_size(p), std::max(old_bytes + old_bytes / 2, size_t{32})) << size;
  }
  EXPECT_LE(n_moves, 36);
  hak_free(p);
}

TEST(Router, ReallocAroundTheLeastSizeOfHugeKeepsTheBlock) {
  constexpr size_t kHuge = 2048 * kKiB;
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "with its seal such a size has a larger block";
  void *p = hak_malloc(kHuge);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(hak_realloc(p, kHuge - 1), p);
    EXPECT_EQ(hak_realloc(p, kHuge / 2), p);
    EXPECT_LE(hak_usable_size(p), kHuge / 2 + kHuge / 8) << "its tail goes back";
    EXPECT_EQ(hak_realloc(p, kHuge), p);
  }
  p = hak_realloc(p, kHuge / 2 - 1);
  EXPECT_STREQ(hak_owner(p), "ace");
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

size_t ResidentPages(const void *p, size_t size) {
  const size_t n_pages = (size + kPageBytes - 1) / kPageBytes;
  std::vector<unsigned char> resident(n_pages);
  EXPECT_EQ(mincore(const_cast<void *>(p), n_pages * kPageBytes, resident.data()), 0);
  return static_cast<size_t>(
      std::count_if(resident.begin(), resident.end(), [](unsigned char page) { return (page & 1) != 0; }));
}

// Neither is whole pages.
const size_t kSizesOfTables[] = {kMiB - 100, 4 * kMiB - 100};

TEST(Router, CallocOfWhatWasUsedSparselyIsZeroAndSparse) {
  for (size_t size : kSizesOfTables) {
    hak_trim(0);
    auto *p = static_cast<unsigned char *>(hak_calloc(1, size));
    for (int round = 0; round < 3; ++round) {
      ASSERT_NE(p, nullptr);
      for (size_t i : {size_t{0}, size / 3, size - 1}) p[i] = 0xff;
      hak_free(p);
      p = static_cast<unsigned char *>(hak_calloc(1, size));
      EXPECT_LE(ResidentPages(p, size), 1u) << size;  // which was cleared in part
    }
    EXPECT_TRUE(IsZero(p, size)) << size;
    hak_free(p);
  }
}

TEST(Router, CallocOfWhatWasUsedAsAWholeFaultsNothingIn) {
  for (size_t size : kSizesOfTables) {
    if (HAK_CONFIG_HARDENED && size >= 2 * kMiB) continue;  // of freed mappings it keeps no pages
    hak_free(memset(hak_malloc(size), 0xff, size));
    const size_t faults = MinorFaults();
    void *p = hak_calloc(1, size);
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(IsZero(p, size)) << size;
    EXPECT_LT(MinorFaults() - faults, size / kPageBytes / 2) << size;
    hak_free(p);
  }
}

TEST(Router, CallocIsZeroAlsoWhereSparsePagesCannotGoBack) {
  for (size_t size : kSizesOfTables) {
    hak_trim(0);
    auto *p = static_cast<unsigned char *>(hak_calloc(1, size));
    ASSERT_NE(p, nullptr);
    const size_t whole = size / kPageBytes * kPageBytes;
    if (mlock2(p, whole, MLOCK_ONFAULT) != 0) GTEST_SKIP() << "memory cannot be locked here";
    p[size / 3] = 0xff;
    hak_free(p);
    auto *q = static_cast<unsigned char *>(hak_calloc(1, size));
    ASSERT_NE(q, nullptr);
    EXPECT_TRUE(IsZero(q, size)) << size;
    munlock(p, whole);
    hak_free(q);
  }
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
  hak_trim(0);
  std::vector<void *> neighbours = {hak_malloc(2 * kMiB)};  // what is mapped next lies below it
  auto *p = static_cast<unsigned char *>(hak_malloc(16 * kMiB));
  Fill(p, 16 * kMiB, 3);
  size_t faults = 0;
  unsigned n_moves = 0;
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

// Blocks of Tiny and Mid of which others of the same size were allocated since, so that they lie in slabs of all
// states.
TEST(RouterMisuse, AnImmediateDoubleFreeStopsInEverySlab) {
  for (size_t size : {size_t{16}, size_t{700}, size_t{1500}, size_t{3000}, size_t{8000}, size_t{32768}}) {
    std::vector<void *> blocks(64 + 3 * 65536 / size);
    for (void *&p : blocks) p = hak_malloc(size);
    for (size_t i = 0; i < blocks.size(); ++i) {
      hak_free(blocks[i]);
      if (i >= 10 && i % (blocks.size() / 8) != 0) continue;
      EXPECT_EXIT(hak_free(blocks[i]), ::testing::KilledBySignal(SIGABRT), "FATAL: free\\(0x[0-9a-f]+\\): double free")
          << size << ", block " << i;
    }
  }
}

// With every 64th slow call a thread gives back and publishes what it has freed, by which a double free is known.
TEST(RouterMisuse, NoTickHidesAnImmediateDoubleFree) {
  ASSERT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", "2"), 0);
  std::vector<void *> large;
  for (int i = 0; i < 120; ++i) {
    std::vector<void *> own(100), others(100);
    for (void *&p : own) p = hak_malloc(3000);
    std::thread([&] {
      for (void *&p : others) p = hak_malloc(3000);
    }).join();
    for (std::vector<void *> *blocks : {&own, &others}) {
      for (int n = 0; n < 3; ++n) hak_free((*blocks)[n]);
      usleep(2000);
      EXPECT_EXIT(hak_free((*blocks)[2]), ::testing::KilledBySignal(SIGABRT), "double free") << i;
      for (size_t n = 3; n < blocks->size(); ++n) hak_free((*blocks)[n]);
    }
    for (int n = 0; n < i % 5; ++n) large.push_back(hak_malloc(3 << 20));  // slow calls
  }
  for (void *p : large) hak_free(p);
  ASSERT_EQ(hak_set("HAKMEM_PURGE_DELAY_MS", "1000"), 0);
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

TEST(RouterMisuse, BitsAboveAnAddressStopInEveryTier) {
  for (size_t size : kSizes) {
    void *p = hak_malloc(size);
    void *tagged = reinterpret_cast<void *>(reinterpret_cast<uintptr_t>(p) | uintptr_t{1} << 60);
    EXPECT_EXIT(hak_free(tagged), ::testing::KilledBySignal(SIGABRT), "FATAL: free\\(0x[0-9a-f]+\\): ") << size;
    EXPECT_EXIT(hak_realloc(tagged, size + 1), ::testing::KilledBySignal(SIGABRT), "FATAL: realloc\\(") << size;
    EXPECT_EXIT(hak_usable_size(tagged), ::testing::KilledBySignal(SIGABRT), "FATAL: malloc_usable_size\\(") << size;
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

// A program that has learned to keep a large block, and then grows by small ones.
TEST(Router, WhatHugeKeepsLeavesWhenSmallBlocksTakeItsPlace) {
  if (HAK_CONFIG_HARDENED) GTEST_SKIP() << "it keeps guards, which hold no pages";
  hak_trim(0);
  struct hak_stats stats;
  for (int i = 0; i < 4; ++i) hak_free(hak_malloc(24 * kMiB));
  hak_stats_read(&stats);
  ASSERT_GE(stats.huge_cached_bytes, 24 * kMiB) << "it was wanted again and again";
  std::this_thread::sleep_for(std::chrono::milliseconds(25));
  std::vector<void *> blocks(100 * kMiB / 1000);
  for (void *&p : blocks) p = hak_malloc(1000);
  hak_stats_read(&stats);
  EXPECT_EQ(stats.huge_cached_bytes, 0u);
  for (void *p : blocks) hak_free(p);
  hak_trim(0);
}

// In the hardened library, where what Huge keeps is a guard. That the process keeps too much of other memory then is
// what the phases are for, after which it may keep less than it does.
TEST(Router, AGuardStaysWhateverTheProcessKeeps) {
  if (!HAK_CONFIG_HARDENED) GTEST_SKIP() << "nothing is a guard";
  hak_trim(0);
  std::vector<void *> blocks(30000);
  for (int phase = 0; phase < 6; ++phase) {
    for (void *&p : blocks) p = hak_malloc(1000);
    for (void *p : blocks) hak_free(p);
  }
  hak_free(hak_malloc(4 * kMiB));
  struct hak_stats stats;
  hak_stats_read(&stats);
  const size_t guarded = stats.huge_cached_bytes;
  std::vector<void *> huge(20);
  for (void *&p : huge) p = hak_malloc(2500 * 1000);
  std::this_thread::sleep_for(std::chrono::milliseconds(25));
  for (size_t size = 64; size < 1064; ++size) hak_free(hak_malloc(size));
  hak_stats_read(&stats);
  EXPECT_EQ(stats.huge_cached_bytes, guarded);
  for (void *p : huge) hak_free(p);
  hak_trim(0);
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

// What a preloaded program gets from the library beside the malloc family and operator new (malloc_test.cc,
// new_delete_test.cc): which functions are replaced, glibc's own of them, libc's allocations, threads. The main program
// of all three.
#include <dlfcn.h>
#include <errno.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "preload/test_preload.h"
#include "preload/test_process.h"

namespace {

using hak_test::ExpectFrees;
using hak_test::Fill;
using hak_test::Function;
using hak_test::Holds;
using hak_test::IsAligned;
using hak_test::kKiB;
using hak_test::kMiB;
using hak_test::kPtrdiffMax;
using hak_test::kSizes;
using hak_test::Opaque;
using hak_test::Owner;
using hak_test::TierOf;

char thread_was_not_cancelled;

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

TEST(Trim, SaysWhetherMemoryWasReleasedAndHarmsNoLiveBlock) {
  malloc_trim(0);
  void *live = Opaque(malloc(100 * kKiB));
  Fill(live, 100 * kKiB, 5);
  std::vector<void *> blocks;
  for (int i = 0; i < 1000; ++i) {
    blocks.push_back(malloc(20 * kKiB));
    memset(blocks.back(), 1, 20 * kKiB);
  }
  for (void *p : blocks) free(p);
  // On a diet it has gone already.
  EXPECT_EQ(malloc_trim(0), getenv("HAKMEM_TINY_MEM_DIET") == nullptr ? 1 : 0);
  EXPECT_EQ(malloc_trim(0), 0);
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

// As POSIX has it. A thread that is to be cancelled grows the process until it asks the system for huge pages.
TEST(Threads, NoFunctionOfTheFamilyIsACancellationPoint) {
  pthread_t thread;
  auto grow = [](void *) -> void * {
    pthread_cancel(pthread_self());
    static char *blocks[100000];
    for (char *&p : blocks) p = static_cast<char *>(malloc(600));
    for (char *&p : blocks) p = static_cast<char *>(realloc(p, 700));
    for (char *p : blocks) free(p);
    free(Opaque(malloc(kPtrdiffMax)));
    malloc_trim(0);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
    return &thread_was_not_cancelled;
  };
  ASSERT_EQ(pthread_create(&thread, nullptr, grow, nullptr), 0);
  void *result = nullptr;
  ASSERT_EQ(pthread_join(thread, &result), 0);
  EXPECT_EQ(result, &thread_was_not_cancelled);
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

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

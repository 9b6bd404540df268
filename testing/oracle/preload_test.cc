// Random programs on the process's own malloc, which is the preload library.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <stdlib.h>

#include "preload/test_process.h"
#include "testing/oracle/c_allocator.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/seeds.h"

namespace hak_oracle {
namespace {

const char *Owner(const void *p) {
  using Function = const char *(*)(const void *);
  static const auto owner = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, "hak_owner"));
  return owner(p);
}

// The test's own containers live in the same heap.
void CheckNothingHeld() {}

size_t UsableSize(const void *p) { return malloc_usable_size(const_cast<void *>(p)); }

size_t Trim(size_t keep_bytes) { return malloc_trim(keep_bytes) == 0 ? 0 : 1; }

std::unique_ptr<Allocator> MakeMalloc() {
  return MakeCAllocator({malloc, calloc, realloc, aligned_alloc, posix_memalign, free, UsableSize, Trim, Owner,
                         CheckNothingHeld, nullptr});
}

void RunPrograms(void (Oracle::*run)(const Program &)) {
  constexpr size_t kOperations = 50000;
  const std::unique_ptr<Allocator> allocator = MakeMalloc();
  ForEachSeed(4, [&](uint64_t seed) {
    EXPECT_GT(RunRandomProgram(allocator.get(), AllTiersProfile(), seed, kOperations, run), kOperations / 8);
  });
}

TEST(PreloadOracle, RandomProgramsInTurnAreServedRight) { RunPrograms(&Oracle::RunInTurn); }

TEST(PreloadOracle, RandomProgramsOfSeveralThreadsAtOnceAreServedRight) { RunPrograms(&Oracle::RunConcurrently); }

}  // namespace
}  // namespace hak_oracle

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  return hak_oracle::RunTests(argc, argv);
}

// Random programs on the router, executed in turn: over all tiers, and from one to another by realloc.
#include "testing/oracle/router.h"

#include <gtest/gtest.h>

#include "testing/oracle/c_allocator.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/own_threads.h"
#include "testing/oracle/seeds.h"

namespace hak_oracle {
namespace {

void RunPrograms(Allocator *allocator, size_t n_threads, size_t n_operations) {
  Profile profile = AllTiersProfile();
  profile.n_threads = n_threads;
  ForEachSeed(4, [&](uint64_t seed) {
    EXPECT_GT(RunRandomProgram(allocator, profile, seed, n_operations, &Oracle::RunInTurn), n_operations / 8);
  });
}

TEST(RouterOracle, RandomProgramsOfOneThreadAreServedRight) { RunPrograms(MakeRouter().get(), 1, 50000); }

TEST(RouterOracle, RandomProgramsOfSeveralThreadsInTurnAreServedRight) {
  RunPrograms(InOwnThreads(MakeRouter()).get(), 4, 10000);
}

}  // namespace
}  // namespace hak_oracle

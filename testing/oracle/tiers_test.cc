// Random programs on each tier alone.
#include "testing/oracle/tiers.h"

#include <gtest/gtest.h>

#include "testing/oracle/oracle.h"
#include "testing/oracle/program.h"
#include "testing/oracle/seeds.h"

namespace hak_oracle {
namespace {

constexpr size_t kPageBytes[] = {4096, 16384, 65536};

// Every page size gets its turn, and every fourth program is on a diet.
TierOptions OptionsFor(uint64_t seed) {
  TierOptions options;
  options.page_bytes = kPageBytes[seed % 3];
  options.diet = seed % 4 == 0;
  return options;
}

class TierOracle : public testing::TestWithParam<Tier> {
 protected:
  void RunPrograms(void (Oracle::*run)(const Program &)) {
    const Tier &tier = GetParam();
    ForEachSeed(6, [&](uint64_t seed) {
      const std::unique_ptr<Allocator> allocator = tier.make(OptionsFor(seed));
      const size_t n_served = RunRandomProgram(allocator.get(), tier.profile, seed, tier.n_operations, run);
      EXPECT_GT(n_served, tier.n_operations / 8);
    });
  }
};

TEST_P(TierOracle, RandomProgramsOfSeveralThreadsInTurnAreServedRight) { RunPrograms(&Oracle::RunInTurn); }

TEST_P(TierOracle, RandomProgramsOfSeveralThreadsAtOnceAreServedRight) { RunPrograms(&Oracle::RunConcurrently); }

INSTANTIATE_TEST_SUITE_P(Every, TierOracle, testing::ValuesIn(AllTiers()),
                         [](const auto &test) { return test.param.name; });

}  // namespace
}  // namespace hak_oracle

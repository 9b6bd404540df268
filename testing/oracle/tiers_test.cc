// Random programs on each tier alone, executed in turn.
#include "testing/oracle/tiers.h"

#include <gtest/gtest.h>

#include "testing/oracle/oracle.h"
#include "testing/oracle/program.h"
#include "testing/oracle/seeds.h"

namespace hak_oracle {
namespace {

class TierOracle : public testing::TestWithParam<Tier> {};

TEST_P(TierOracle, RandomProgramsOfSeveralThreadsInTurnAreServedRight) {
  const Tier &tier = GetParam();
  ForEachSeed(6, [&](uint64_t seed) {
    const std::unique_ptr<Allocator> allocator = tier.make(OptionsForSeed(seed));
    const size_t n_served =
        RunRandomProgram(allocator.get(), tier.profile, seed, tier.n_operations, &Oracle::RunInTurn);
    EXPECT_GT(n_served, tier.n_operations / 8);
  });
}

INSTANTIATE_TEST_SUITE_P(Every, TierOracle, testing::ValuesIn(AllTiers()),
                         [](const auto &test) { return test.param.name; });

}  // namespace
}  // namespace hak_oracle

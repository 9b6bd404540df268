// Random programs on each tier alone, executed by several threads at once.
#include "testing/oracle/tiers.h"

#include <gtest/gtest.h>

#include "base/compiler.h"
#include "platform/delay.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/program.h"
#include "testing/oracle/seeds.h"

namespace hak_oracle {
namespace {

class TierThreadsOracle : public testing::TestWithParam<Tier> {};

TEST_P(TierThreadsOracle, RandomProgramsOfSeveralThreadsAtOnceAreServedRight) {
  const Tier &tier = GetParam();
  ForEachSeed(4, [&](uint64_t seed) {
    const uint64_t n_delays = hak_delay_count();
    const std::unique_ptr<Allocator> allocator = tier.make(OptionsForSeed(seed));
    const size_t n_served =
        RunRandomProgram(allocator.get(), tier.profile, seed, tier.n_operations, &Oracle::RunConcurrently);
    EXPECT_GT(n_served, tier.n_operations / 8);
    EXPECT_EQ(hak_delay_count() > n_delays, HAK_CONFIG_CHECKED != 0) << "in checked builds threads are delayed";
  });
}

INSTANTIATE_TEST_SUITE_P(Every, TierThreadsOracle, testing::ValuesIn(AllTiers()),
                         [](const auto &test) { return test.param.name; });

}  // namespace
}  // namespace hak_oracle

// Random programs on the router, executed by several threads at once.
#include <gtest/gtest.h>

#include "base/compiler.h"
#include "platform/delay.h"
#include "testing/oracle/c_allocator.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/router.h"
#include "testing/oracle/seeds.h"

namespace hak_oracle {
namespace {

TEST(RouterThreadsOracle, RandomProgramsOfSeveralThreadsAtOnceAreServedRight) {
  constexpr size_t kOperations = 50000;
  const std::unique_ptr<Allocator> allocator = MakeRouter();
  ForEachSeed(4, [&](uint64_t seed) {
    const uint64_t n_delays = hak_delay_count();
    const size_t n_served =
        RunRandomProgram(allocator.get(), AllTiersProfile(), seed, kOperations, &Oracle::RunConcurrently);
    EXPECT_GT(n_served, kOperations / 8);
    EXPECT_EQ(hak_delay_count() > n_delays, HAK_CONFIG_CHECKED != 0) << "in checked builds threads are delayed";
  });
}

}  // namespace
}  // namespace hak_oracle

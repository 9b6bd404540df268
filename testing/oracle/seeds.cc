#include "testing/oracle/seeds.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "platform/delay.h"
#include "testing/oracle/failure.h"

ABSL_FLAG(uint64_t, seed, 1, "the first program's seed");
ABSL_FLAG(uint64_t, programs, 0, "how many programs each test runs; 0: its own number");

namespace hak_oracle {
namespace {

std::string RepeatCommand(uint64_t seed) {
  const testing::TestInfo *test = testing::UnitTest::GetInstance()->current_test_info();
  const char *target = std::getenv("TEST_TARGET");
  return absl::StrCat("./bazelw run ", target == nullptr ? "//testing/oracle:..." : target,
                      " -- --gtest_filter=", test->test_suite_name(), ".", test->name(), " --seed=", seed,
                      " --programs=1, with the same --config");
}

}  // namespace

void ForEachSeed(size_t n_programs, absl::FunctionRef<void(uint64_t seed)> run) {
  const uint64_t first = absl::GetFlag(FLAGS_seed);
  if (absl::GetFlag(FLAGS_programs) != 0) n_programs = absl::GetFlag(FLAGS_programs);
  for (uint64_t seed = first; seed < first + n_programs; ++seed) {
    AnnounceProgram(RepeatCommand(seed));
    hak_delay_set_seed(seed);
    run(seed);
  }
}

int RunTests(int argc, char **argv) {
  testing::InitGoogleTest(&argc, argv);
  absl::ParseCommandLine(argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace hak_oracle

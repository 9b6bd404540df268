// A request that cannot be served: NULL and ENOMEM, few words, and full service once memory has been freed.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "preload/test_process.h"

#ifndef HAK_CONFIG_CHECKED
#define HAK_CONFIG_CHECKED 0
#endif

namespace {

using hak_test::Lines;
using hak_test::Outcome;

Outcome Exhaust(size_t size, unsigned failures, const std::vector<std::string> &environment) {
  return hak_test::Run({hak_test::DataFile("preload/exhaust"), std::to_string(size), "128", std::to_string(failures)},
                       environment);
}

unsigned Count(const std::string &text, const std::string &line) {
  unsigned count = 0;
  for (const std::string &candidate : Lines(text)) count += candidate == line;
  return count;
}

std::string FallbackWarning(size_t size) {
  return "[HAKMEM] WARNING: malloc fallback disabled (size=" + std::to_string(size) + "), returning NULL (OOM)";
}

std::string LayersWarning(size_t size) {
  return "[HAKMEM] OOM: All allocation layers failed for size=" + std::to_string(size) + ", returning NULL";
}

class OutOfMemory : public testing::TestWithParam<size_t> {};

TEST_P(OutOfMemory, GivesEnomemTheProgramGoesOnAndFreedMemoryServesAgain) {
  Outcome outcome = Exhaust(GetParam(), 10, {});
  EXPECT_EQ(outcome.out, " ok\n");
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_EQ(outcome.signal, 0);
#if !HAK_CONFIG_CHECKED
  EXPECT_EQ(outcome.err, "") << "a release build prints only when asked to";
#endif
}

TEST_P(OutOfMemory, GivesTheSameWithMemDiet) {
  Outcome outcome = Exhaust(GetParam(), 10, {"HAKMEM_TINY_MEM_DIET=1"});
  EXPECT_EQ(outcome.out, " ok\n");
  EXPECT_EQ(outcome.exit_status, 0);
}

TEST_P(OutOfMemory, VerbosePrintsEachWarningThreeTimesAtMost) {
  Outcome outcome = Exhaust(GetParam(), 10, {"HAKMEM_VERBOSE=1"});
  EXPECT_EQ(outcome.out, " ok\n");
  EXPECT_EQ(Count(outcome.err, FallbackWarning(GetParam())), 3u) << outcome.err;
  EXPECT_EQ(Count(outcome.err, LayersWarning(GetParam())), 3u) << outcome.err;
  unsigned of_these_kinds = 0;
  for (const std::string &line : Lines(outcome.err)) {
    of_these_kinds += line.rfind("[HAKMEM] WARNING: malloc fallback", 0) == 0 || line.rfind("[HAKMEM] OOM: ", 0) == 0;
  }
  EXPECT_EQ(of_these_kinds, 6u) << outcome.err;
}

TEST(MallocFallback, ServesFromLibcAndEachBlockGoesBackToItsOwner) {
  Outcome outcome = hak_test::Run({hak_test::DataFile("preload/fallback")}, {"HAKMEM_ALLOW_MALLOC_FALLBACK=1"});
  EXPECT_EQ(outcome.out, " ok\n");
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_EQ(outcome.signal, 0);
}

INSTANTIATE_TEST_SUITE_P(EveryTier, OutOfMemory, testing::Values(64, 1024, 5000, 32768, 100 * 1024, 1 << 20, 4 << 20),
                         testing::PrintToStringParamName());

}  // namespace

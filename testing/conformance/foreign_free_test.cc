// "Libraries opened with RTLD_DEEPBIND allocate from libc and may hand such pointers to our free and realloc":
// HAKMEM_FOREIGN_FREE says what happens then.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::DataFile;
using hak_test::Outcome;

constexpr char kReason[] =
    "pointer was not allocated by hakmem; "
    "if libc's malloc did, for a library opened with RTLD_DEEPBIND, set HAKMEM_FOREIGN_FREE=libc\n";

class ForeignFree : public testing::TestWithParam<const char *> {};

Outcome RunHost(const std::string &function, const std::vector<std::string> &environment) {
  return hak_test::Run(
      {DataFile("testing/conformance/deepbind_host"), DataFile("testing/conformance/libdeepbound.so"), function},
      environment);
}

TEST_P(ForeignFree, AbortsByDefaultWithALineThatNamesTheCause) {
  for (const std::vector<std::string> &environment : {std::vector<std::string>{}, {"HAKMEM_FOREIGN_FREE=abort"}}) {
    Outcome outcome = RunHost(GetParam(), environment);
    ASSERT_EQ(hak_test::Lines(outcome.out).size(), 1u) << outcome.out;
    EXPECT_EQ(outcome.err,
              std::string("[HAKMEM] FATAL: ") + GetParam() + "(" + hak_test::Lines(outcome.out)[0] + "): " + kReason);
    EXPECT_EQ(outcome.signal, SIGABRT);
  }
}

TEST_P(ForeignFree, LibcServesItsOwnBlocksIfTheVariableSaysSo) {
  Outcome outcome = RunHost(GetParam(), {"HAKMEM_FOREIGN_FREE=libc"});
  EXPECT_EQ(outcome.err, "");
  ASSERT_EQ(hak_test::Lines(outcome.out).size(), 2u) << outcome.out;
  EXPECT_EQ(hak_test::Lines(outcome.out)[1], "ok");
  EXPECT_EQ(outcome.exit_status, 0);
}

INSTANTIATE_TEST_SUITE_P(Functions, ForeignFree, testing::Values("free", "realloc", "malloc_usable_size"),
                         [](const auto &function) { return std::string(function.param); });

TEST(ForeignFreeLibc, WhatIsInsideOfHakmemsMemoryIsStillMisuse) {
  Outcome outcome = RunHost("hakmem", {"HAKMEM_FOREIGN_FREE=libc"});
  ASSERT_EQ(hak_test::Lines(outcome.out).size(), 2u) << outcome.out;
  EXPECT_EQ(outcome.err,
            "[HAKMEM] FATAL: free(" + hak_test::Lines(outcome.out)[1] + "): pointer is not the start of a block\n");
  EXPECT_EQ(outcome.signal, SIGABRT);
}

TEST(ForeignFreeVariable, ABadValueIsReportedAndTheDefaultHolds) {
  Outcome outcome = RunHost("free", {"HAKMEM_FOREIGN_FREE=glibc"});
  ASSERT_EQ(hak_test::Lines(outcome.err).size(), 2u) << outcome.err;
  EXPECT_EQ(hak_test::Lines(outcome.err)[0],
            "[HAKMEM] HAKMEM_FOREIGN_FREE must be abort or libc; using the default abort instead of glibc");
  EXPECT_EQ(outcome.signal, SIGABRT);
}

}  // namespace

// "An injected failure of the N-th mmap/mremap/madvise for every N: NULL with ENOMEM, nothing lost, and full service
// again. A program with 1 million mixed live blocks stays below 1,000 mappings." A limit on the address space is
// //preload:out_of_memory_test.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "preload/test_process.h"

namespace {

using hak_test::DataFile;
using hak_test::Outcome;

std::string Program(const std::string &name) { return DataFile("testing/conformance/" + name); }

class FailingCalls : public testing::TestWithParam<const char *> {};

TEST_P(FailingCalls, GiveEnomemLoseNothingAndAreForgottenOnceTheSystemWorksAgain) {
  Outcome outcome = hak_test::Run({"/usr/bin/env",
                                   "LD_PRELOAD=" + DataFile("preload/libhakmem.so") + ":" + Program("libfailing_os.so"),
                                   Program("failing_calls"), GetParam()});
  EXPECT_EQ(outcome.exit_status, 0) << outcome.out << outcome.err;
  EXPECT_GE(atoi(outcome.out.c_str()), 200) << outcome.out << "too little happens to prove anything";
  // A single failure may be made up for by another tier; a long series is not.
  if (std::string(GetParam()) != "1") {
    EXPECT_NE(outcome.out.find("some refused"), std::string::npos) << outcome.out;
  }
}

INSTANTIATE_TEST_SUITE_P(InARow, FailingCalls, testing::Values("1", "1000"),
                         [](const auto &n_calls) { return std::string(n_calls.param); });

TEST(Mappings, StayBelowAThousandWithAMillionMixedBlocks) {
  Outcome outcome = hak_test::Run({Program("many_blocks")});
  ASSERT_EQ(outcome.exit_status, 0) << outcome.err;
  EXPECT_GT(atoi(outcome.out.c_str()), 0);
  EXPECT_LT(atoi(outcome.out.c_str()), 1000);
}

}  // namespace

// Every program of this folder is stopped with SIGABRT and exactly the line on stderr that it announces on stdout.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>

#include "preload/test_process.h"

namespace {

class Misuse : public testing::TestWithParam<const char *> {};

TEST_P(Misuse, IsStoppedWithOneLineThatNamesThePointer) {
  std::string program = hak_test::DataFile(std::string("testing/misuse/") + GetParam());
  hak_test::Outcome outcome = hak_test::Run({program});
  ASSERT_EQ(outcome.out.rfind("[HAKMEM] FATAL: ", 0), 0u) << "the program did not get as far as its misuse";
  EXPECT_EQ(outcome.err, outcome.out);
  EXPECT_EQ(outcome.signal, SIGABRT) << "exit status " << outcome.exit_status;
}

INSTANTIATE_TEST_SUITE_P(Programs, Misuse, testing::Values(MISUSE_PROGRAMS),
                         [](const auto &program) { return std::string(program.param); });

}  // namespace

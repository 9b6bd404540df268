// Every program of this folder is stopped with SIGABRT and exactly the line on stderr that it announces on stdout; but
// for those that touch guarded memory.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <string>
#include <vector>

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

class Guarded : public testing::TestWithParam<const char *> {};

TEST_P(Guarded, MemoryOutOfReachEndsTheProgramAtTheFirstTouch) {
  hak_test::Outcome outcome = hak_test::Run({hak_test::DataFile(std::string("testing/misuse/") + GetParam())});
  EXPECT_EQ(outcome.out, "ready\n") << "the program did not get as far as its misuse";
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.signal, SIGSEGV) << "exit status " << outcome.exit_status;
}

// The release library guards nothing.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Guarded);

std::string NameOf(const testing::TestParamInfo<const char *> &program) {
  std::string name = program.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Programs, Misuse, testing::ValuesIn(std::vector<const char *>{MISUSE_PROGRAMS}), NameOf);
INSTANTIATE_TEST_SUITE_P(Programs, Guarded, testing::ValuesIn(std::vector<const char *>{GUARDED_PROGRAMS}), NameOf);

}  // namespace

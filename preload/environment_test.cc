// The HAKMEM_ variables, read once at the start of a process.
#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::Lines;
using hak_test::Outcome;

Outcome Probe(const std::vector<std::string> &environment) {
  return hak_test::Run({hak_test::DataFile("preload/probe"), "64", "5000", "102400", "4194304"}, environment);
}

constexpr char kDefaultTiers[] = "64 tiny\n5000 mid\n102400 ace\n4194304 huge\n";

const char *const kVariables[] = {
    "HAKMEM_TINY_USE_SUPERSLAB",    "HAKMEM_ACE_ENABLED",           "HAKMEM_TINY_MEM_DIET",
    "HAKMEM_TINY_REFILL_COUNT_HOT", "HAKMEM_ALLOW_MALLOC_FALLBACK", "HAKMEM_VERBOSE",
};

TEST(Environment, WithoutVariablesEveryTierServesAndNothingIsPrinted) {
  Outcome outcome = Probe({});
  EXPECT_EQ(outcome.out, kDefaultTiers);
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.exit_status, 0);
}

TEST(Environment, ABadValueGivesOneLineWithVariableValueAndRangeAndThenTheDefault) {
  for (const std::string variable : kVariables) {
    for (const std::string value : {"banana", "-1", "1x", " 1", "0x1", "99999999999999999999", "1000000000"}) {
      Outcome outcome = Probe({variable + "=" + value});
      EXPECT_EQ(outcome.exit_status, 0) << variable << "=" << value;
      EXPECT_EQ(outcome.out, kDefaultTiers) << variable << "=" << value;
      std::vector<std::string> lines = Lines(outcome.err);
      ASSERT_EQ(lines.size(), 1u) << variable << "=" << value << ": " << outcome.err;
      EXPECT_EQ(lines[0].rfind("[HAKMEM] ", 0), 0u) << lines[0];
      size_t at = lines[0].find(variable);
      ASSERT_NE(at, std::string::npos) << lines[0];
      EXPECT_NE(lines[0].find(value, at + variable.size()), std::string::npos) << lines[0];
      // The range: "0 or 1", "1 to 256" and the like.
      EXPECT_TRUE(std::regex_search(lines[0], std::regex("[0-9]+( or | to |-|\\.\\.|, )[0-9]+"))) << lines[0];
    }
  }
}

TEST(Environment, ABadSwitchSaysThatZeroAndOneAreAccepted) {
  Outcome outcome = Probe({"HAKMEM_ACE_ENABLED=2"});
  EXPECT_TRUE(std::regex_search(outcome.err, std::regex("\\b0\\b.*\\b1\\b"))) << outcome.err;
  EXPECT_EQ(Lines(outcome.err).size(), 1u) << outcome.err;
}

TEST(Environment, SeveralBadValuesGiveOneLineEach) {
  std::vector<std::string> environment;
  for (const std::string variable : kVariables) environment.push_back(variable + "=banana");
  Outcome outcome = Probe(environment);
  EXPECT_EQ(Lines(outcome.err).size(), environment.size()) << outcome.err;
  EXPECT_EQ(outcome.out, kDefaultTiers);
}

TEST(Environment, ALongValueIsReportedWithoutHarm) {
  Outcome outcome = Probe({"HAKMEM_ACE_ENABLED=" + std::string(100000, 'x')});
  EXPECT_EQ(outcome.exit_status, 0);
  EXPECT_EQ(Lines(outcome.err).size(), 1u);
  EXPECT_NE(outcome.err.find("HAKMEM_ACE_ENABLED"), std::string::npos);
}

TEST(Environment, DefaultValuesSpelledOutChangeNothing) {
  Outcome outcome = Probe({"HAKMEM_TINY_USE_SUPERSLAB=1", "HAKMEM_ACE_ENABLED=1", "HAKMEM_TINY_MEM_DIET=0",
                           "HAKMEM_ALLOW_MALLOC_FALLBACK=0", "HAKMEM_VERBOSE=0"});
  EXPECT_EQ(outcome.out, kDefaultTiers);
  EXPECT_EQ(outcome.err, "");
}

TEST(Environment, TinyUseSuperslabZeroSendsSmallSizesToMid) {
  EXPECT_EQ(Probe({"HAKMEM_TINY_USE_SUPERSLAB=0"}).out, "64 mid\n5000 mid\n102400 ace\n4194304 huge\n");
}

TEST(Environment, AceEnabledZeroSendsItsSizesToHuge) {
  EXPECT_EQ(Probe({"HAKMEM_ACE_ENABLED=0"}).out, "64 tiny\n5000 mid\n102400 huge\n4194304 huge\n");
}

TEST(Environment, BothSwitchedOffStillServesEverySize) {
  EXPECT_EQ(Probe({"HAKMEM_TINY_USE_SUPERSLAB=0", "HAKMEM_ACE_ENABLED=0"}).out,
            "64 mid\n5000 mid\n102400 huge\n4194304 huge\n");
}

TEST(Environment, ALimitIsKeptByEveryTier) {
  auto probe = [](const std::string &value) {
    return hak_test::Run({hak_test::DataFile("preload/probe"), "64", "102400", "4194304", "41943040"},
                         {"HAKMEM_LIMIT=" + value, "HAKMEM_VERBOSE=0"});
  };
  const std::string served = "64 tiny\n102400 ace\n4194304 huge\n";
  for (const char *value : {"32m", "33554432", "32m:hard", "32768K"}) {
    Outcome outcome = probe(value);
    EXPECT_EQ(outcome.out, served + "41943040 NULL\n") << value;
    EXPECT_EQ(outcome.err, "") << value;
  }
  for (const char *value : {"32m:soft", "64m", "1g", "0", "90%"}) {
    Outcome outcome = probe(value);
    EXPECT_EQ(outcome.out, served + "41943040 huge\n") << value;
    EXPECT_EQ(outcome.err, "") << value;
  }
}

TEST(Environment, ABadLimitGivesOneLineThatSaysWhatIsAcceptedAndIsNone) {
  for (const std::string value :
       {"", "banana", "512mb", "0%", "101%", "1k", "32m:weak", "-1", "99999999999999999999"}) {
    Outcome outcome = Probe({"HAKMEM_LIMIT=" + value});
    EXPECT_EQ(outcome.out, kDefaultTiers) << value;
    EXPECT_EQ(
        outcome.err,
        "[HAKMEM] HAKMEM_LIMIT must be 0 (no limit), bytes from 1m up (1048576, 512m, 2g) or 1% to 100% of memory, "
        "followed by :hard, :soft or nothing; using the default 0 instead of " +
            value + "\n");
  }
}

TEST(Environment, MemDietServesEverySize) {
  Outcome outcome = Probe({"HAKMEM_TINY_MEM_DIET=1"});
  EXPECT_EQ(outcome.out, kDefaultTiers);
  EXPECT_EQ(outcome.err, "");
}

}  // namespace

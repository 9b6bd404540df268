#include "router/config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <ostream>
#include <string>
#include <utility>

#include "base/compiler.h"
#include "superslab/pool.h"

namespace {

std::map<std::string, std::string> variables;

const char *Get(const char *name) {
  auto found = variables.find(name);
  return found == variables.end() ? nullptr : found->second.c_str();
}

struct Variable {
  const char *name;
  unsigned hak_config::*field;
  unsigned min, max, standard;
};

void PrintTo(const Variable &variable, std::ostream *out) { *out << variable.name; }

const Variable kVariables[] = {
    {"HAKMEM_TINY_USE_SUPERSLAB", &hak_config::tiny_use_superslab, 0, 1, 1},
    {"HAKMEM_ACE_ENABLED", &hak_config::ace_enabled, 0, 1, 1},
    {"HAKMEM_TINY_MEM_DIET", &hak_config::tiny_mem_diet, 0, 1, 0},
    {"HAKMEM_TINY_REFILL_COUNT_HOT", &hak_config::tiny_refill_count_hot, 1, 4096, 64},
    {"HAKMEM_PURGE_DELAY_MS", &hak_config::purge_delay_ms, 0, 3600000, 1000},
    {"HAKMEM_BACKGROUND_PURGE", &hak_config::background_purge, 0, 1, 0},
    {"HAKMEM_ALLOW_MALLOC_FALLBACK", &hak_config::allow_malloc_fallback, 0, 1, 0},
    {"HAKMEM_VERBOSE", &hak_config::verbose, 0, 1, HAK_CONFIG_CHECKED},
};

class Config : public ::testing::TestWithParam<Variable> {
 protected:
  void SetUp() override { variables.clear(); }

  // What the variable means with this value, and what is said about it.
  unsigned Read(const std::string &value, std::string *said) {
    variables[GetParam().name] = value;
    testing::internal::CaptureStderr();
    hak_config config = hak_config_read(Get);
    *said = testing::internal::GetCapturedStderr();
    for (const Variable &other : kVariables) {
      if (other.name != GetParam().name) {
        EXPECT_EQ(config.*other.field, other.standard) << other.name;
      }
    }
    return config.*GetParam().field;
  }

  std::string RangeText() { return std::to_string(GetParam().min) + " to " + std::to_string(GetParam().max); }

  std::string said_;
};

TEST_P(Config, HasItsDefaultInSilenceWhenItIsNotSet) {
  testing::internal::CaptureStderr();
  hak_config config = hak_config_read(Get);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(config.*GetParam().field, GetParam().standard);
}

// Every value of a short range, some five thousand of a long one, its ends included.
TEST_P(Config, TakesTheValuesOfItsRangeInSilence) {
  const unsigned step = (GetParam().max - GetParam().min) / 5000 + 1;
  for (unsigned value = GetParam().min; value != GetParam().max + 1;
       value = value == GetParam().max ? value + 1 : std::min(value + step, GetParam().max)) {
    EXPECT_EQ(Read(std::to_string(value), &said_), value);
    EXPECT_EQ(said_, "");
  }
}

TEST_P(Config, NamesVariableValueAndRangeOfABadValueInOneLineAndHasItsDefault) {
  const std::string too_large = std::to_string(GetParam().max + 1);
  for (const std::string value : {"yes", "-1", "+1", " 1", "1 ", "0x1", "1.0", too_large.c_str(), "4294967296",
                                  "18446744073709551617", "99999999999999999999999999"}) {
    EXPECT_EQ(Read(value, &said_), GetParam().standard) << value;
    EXPECT_EQ(said_.rfind(std::string("[HAKMEM] ") + GetParam().name + " ", 0), 0u) << said_;
    EXPECT_NE(said_.find(" " + RangeText() + ";"), std::string::npos) << said_;
    EXPECT_NE(said_.find(" " + value + "\n"), std::string::npos) << said_;
    EXPECT_EQ(std::count(said_.begin(), said_.end(), '\n'), 1) << said_;
  }
}

TEST_P(Config, TakesAnEmptyValueForABadOne) {
  EXPECT_EQ(Read("", &said_), GetParam().standard);
  EXPECT_NE(said_.find(GetParam().name), std::string::npos);
}

TEST_P(Config, NamesTheRangeHoweverLongTheValueIsAndWhateverItHolds) {
  for (const std::string &value : {std::string(100000, 'x'), std::string("a\nb\r\tc")}) {
    EXPECT_EQ(Read(value, &said_), GetParam().standard);
    EXPECT_NE(said_.find(RangeText()), std::string::npos) << said_;
    EXPECT_EQ(said_.find('\n'), said_.size() - 1) << said_;
    EXPECT_LE(said_.size(), 256u);
  }
}

INSTANTIATE_TEST_SUITE_P(Variables, Config, ::testing::ValuesIn(kVariables));

TEST(ConfigRange, ARefillOfNoBlocksIsRefused) {
  variables = {{"HAKMEM_TINY_REFILL_COUNT_HOT", "0"}};
  testing::internal::CaptureStderr();
  EXPECT_EQ(hak_config_read(Get).tiny_refill_count_hot, 64u);
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
}

TEST(ConfigWipe, IsTakenByTheHardenedLibraryAndReportedByTheOther) {
  variables = {{"HAKMEM_WIPE", "1"}};
  testing::internal::CaptureStderr();
  EXPECT_EQ(hak_config_read(Get).wipe, HAK_CONFIG_HARDENED ? 1u : 0u);
  EXPECT_EQ(testing::internal::GetCapturedStderr().empty(), HAK_CONFIG_HARDENED);
}

TEST(ConfigThp, IsAutoUnlessItIsNeverOrAlways) {
  variables.clear();
  EXPECT_EQ(hak_config_read(Get).thp, static_cast<unsigned>(HAK_THP_AUTO));
  for (const auto &[word, value] :
       {std::pair("auto", HAK_THP_AUTO), {"never", HAK_THP_NEVER}, {"always", HAK_THP_ALWAYS}}) {
    variables = {{"HAKMEM_THP", word}};
    EXPECT_EQ(hak_config_read(Get).thp, static_cast<unsigned>(value));
  }
  variables = {{"HAKMEM_THP", "1"}};
  testing::internal::CaptureStderr();
  EXPECT_EQ(hak_config_read(Get).thp, static_cast<unsigned>(HAK_THP_AUTO));
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "[HAKMEM] HAKMEM_THP must be auto, never or always; using the default auto instead of 1\n");
}

TEST(ConfigLimit, IsBytesAndAMode) {
  variables.clear();
  EXPECT_EQ(hak_config_read(Get).limit.bytes, 0u);
  variables = {{"HAKMEM_LIMIT", "512m:soft"}};
  EXPECT_EQ(hak_config_read(Get).limit.bytes, size_t{512} << 20);
  EXPECT_EQ(hak_config_read(Get).limit.soft, 1u);
  variables = {{"HAKMEM_LIMIT", "2G"}};
  EXPECT_EQ(hak_config_read(Get).limit.bytes, size_t{2} << 30);
  EXPECT_EQ(hak_config_read(Get).limit.soft, 0u);
  variables = {{"HAKMEM_LIMIT", "2G:soft "}};
  testing::internal::CaptureStderr();
  EXPECT_EQ(hak_config_read(Get).limit.bytes, 0u);
  EXPECT_EQ(hak_config_read(Get).limit.soft, 0u);
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
}

class ForeignFree : public ::testing::Test {
 protected:
  bool Read(const char *value, std::string *said) {
    variables = {{"HAKMEM_FOREIGN_FREE", value}};
    testing::internal::CaptureStderr();
    hak_config config = hak_config_read(Get);
    *said = testing::internal::GetCapturedStderr();
    return config.foreign_free_libc;
  }

  std::string said_;
};

TEST_F(ForeignFree, AbortsUnlessItIsLibc) {
  variables.clear();
  EXPECT_FALSE(hak_config_read(Get).foreign_free_libc);
  EXPECT_FALSE(Read("abort", &said_));
  EXPECT_EQ(said_, "");
  EXPECT_TRUE(Read("libc", &said_));
  EXPECT_EQ(said_, "");
}

TEST_F(ForeignFree, NamesBothWordsWhenTheValueIsNeither) {
  for (const std::string value : {"", "1", "Libc", "libc ", "abort,libc"}) {
    EXPECT_FALSE(Read(value.c_str(), &said_)) << value;
    EXPECT_EQ(said_,
              "[HAKMEM] HAKMEM_FOREIGN_FREE must be abort or libc; using the default abort instead of " + value + "\n");
  }
}

}  // namespace

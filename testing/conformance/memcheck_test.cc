// "Valgrind's client requests where the header is installed": memcheck reports what a program does wrong with blocks of
// libhakmem-valgrind.so, preloaded, and of //router:hakmem, built the same and linked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "preload/test_process.h"

namespace {

using testing::HasSubstr;

struct Tier {
  const char *name;
  size_t size;
};

void PrintTo(const Tier &tier, std::ostream *out) { *out << tier.name; }

class Memcheck : public testing::TestWithParam<std::tuple<bool, Tier>> {
 protected:
  void SetUp() override {
    if (access("/usr/bin/valgrind", X_OK) != 0) GTEST_SKIP() << "valgrind is not installed";
  }

  // What memcheck writes when memory_errors does `what` with a block of the tier; its exit status is 9 then.
  std::string Report(const std::string &what, int exit_status = 9) const {
    const char *program = is_linked() ? "memory_errors_linked" : "memory_errors";
    std::vector<std::string> command;
    if (is_linked()) command = {"/usr/bin/env", "--unset=LD_PRELOAD"};
    for (const char *part : {"/usr/bin/valgrind", "--leak-check=full", "--error-exitcode=9",
                             "--soname-synonyms=somalloc=nouserintercepts"}) {
      command.push_back(part);
    }
    command.push_back(hak_test::DataFile(std::string("testing/conformance/") + program));
    command.push_back(what);
    command.push_back(std::to_string(size()));
    hak_test::Outcome outcome = hak_test::Run(command);
    EXPECT_EQ(outcome.exit_status, exit_status) << outcome.err;
    return outcome.err;
  }
  static bool is_linked() { return std::get<0>(GetParam()); }
  static size_t size() { return std::get<1>(GetParam()).size; }
  static std::string BlockOfSize() {
    std::string digits = std::to_string(size());
    for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
    return "a block of size " + digits + " ";
  }
};

TEST_P(Memcheck, FindsNothingWhereNothingIsWrong) {
  EXPECT_THAT(Report("nothing", 0), HasSubstr("ERROR SUMMARY: 0 errors"));
}

TEST_P(Memcheck, ReportsUseAfterFree) {
  std::string report = Report("use-after-free");
  EXPECT_THAT(report, HasSubstr("Invalid read of size 1"));
  EXPECT_THAT(report, HasSubstr("bytes inside " + BlockOfSize() + "free'd"));
  EXPECT_THAT(report, HasSubstr("ERROR SUMMARY: 1 errors"));
}

TEST_P(Memcheck, ReportsAWriteBehindTheBlock) {
  std::string report = Report("overflow");
  EXPECT_THAT(report, HasSubstr("Invalid write of size 1"));
  EXPECT_THAT(report, HasSubstr("0 bytes after " + BlockOfSize() + "alloc'd"));
}

TEST_P(Memcheck, ReportsADoubleFree) {
  // Of ACE and Huge the allocator finds it as always, and stops the program.
  const bool is_found = size() > 32768;
  EXPECT_THAT(Report("double-free", is_found ? -1 : 9),
              HasSubstr(is_found ? "[HAKMEM] FATAL: free" : "Invalid free()"));
}

TEST_P(Memcheck, ReportsTheUseOfContentThatNobodyWrote) {
  EXPECT_THAT(Report("undefined"), HasSubstr("Conditional jump or move depends on uninitialised value"));
}

TEST_P(Memcheck, ReportsALeak) {
  // The descriptor of a Huge block holds its address, which memcheck takes for the program's.
  const bool is_huge = std::get<1>(GetParam()).name == std::string("huge");
  std::string report = Report("leak", is_huge ? 0 : 9);
  EXPECT_THAT(report, HasSubstr(is_huge ? "still reachable: 3,000,001 bytes in 1 blocks"
                                        : "are definitely lost in loss record"));
}

INSTANTIATE_TEST_SUITE_P(Tiers, Memcheck,
                         testing::Combine(testing::Bool(), testing::Values(Tier{"tiny", 101}, Tier{"mid", 5001},
                                                                           Tier{"ace", 100001}, Tier{"huge", 3000001})),
                         [](const auto &instance) {
                           return std::string(std::get<1>(instance.param).name) +
                                  (std::get<0>(instance.param) ? "_linked" : "_preloaded");
                         });

}  // namespace

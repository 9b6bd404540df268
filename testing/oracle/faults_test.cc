// Random programs on each tier while the operating system refuses each of its calls at each point. Whatever was
// refused, the answers are right, everything is served afterwards, and all memory returns in the end.
#include <gtest/gtest.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <tuple>

#include "base/compiler.h"
#include "platform/os_fake.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/program.h"
#include "testing/oracle/seeds.h"
#include "testing/oracle/tiers.h"

namespace hak_oracle {
namespace {

struct Call {
  std::string name;
  hak_os_fake_call kind;
};

const Call kCalls[] = {
    {"map", HAK_OS_FAKE_MAP}, {"unmap", HAK_OS_FAKE_UNMAP}, {"purge", HAK_OS_FAKE_PURGE}, {"remap", HAK_OS_FAKE_REMAP}};

void PrintTo(const Call &call, std::ostream *out) { *out << call.name; }

using Parameters = std::tuple<Tier, Call, size_t>;

class FaultOracle : public testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    if (call() == HAK_OS_FAKE_REMAP && tier().name != "huge") GTEST_SKIP() << "only Huge remaps";
    if (HAK_CONFIG_HARDENED && call() == HAK_OS_FAKE_PURGE && tier().name == "huge") {
      GTEST_SKIP() << "there Huge guards what it was given back";
    }
  }

  // Not Huge where it should purge: on a diet it caches nothing.
  static bool diet() { return page_bytes() == 16384 && !(call() == HAK_OS_FAKE_PURGE && tier().name == "huge"); }

  static const Tier &tier() { return std::get<0>(GetParam()); }
  static hak_os_fake_call call() { return std::get<1>(GetParam()).kind; }
  static size_t page_bytes() { return std::get<2>(GetParam()); }

  // Frees all slots but those whose number is a multiple of `kept`, ends all threads, and trims.
  static void AppendReturn(size_t kept, Program *program) {
    const Profile &profile = tier().small_profile;
    for (size_t slot = 0; slot < profile.n_slots; ++slot) {
      if (slot % kept != 0) program->push_back({Action::kFree, 0, static_cast<uint16_t>(slot), 0, 0});
    }
    for (size_t thread = 0; thread < profile.n_threads; ++thread) {
      program->push_back({Action::kEndThread, static_cast<uint8_t>(thread), 0, 0, 0});
    }
    program->push_back({Action::kTrim, 0, 0, 0, 0});
  }

  // Of few operations, since it is executed anew for each point. In the middle first most and then nearly all of it is
  // freed, so that pages and mappings go back to the operating system.
  static Program ProgramFor(uint64_t seed) {
    const Profile &profile = tier().small_profile;
    const size_t n_operations = tier().name == "huge" ? 40 : tier().name == "ace" ? 80 : 500;
    const Program half = RandomProgram(seed, n_operations, profile);
    Program program = half;
    AppendReturn(8, &program);
    AppendReturn(profile.n_slots, &program);
    program.insert(program.end(), half.begin(), half.end());
    return program;
  }

  // Runs the program with `count` calls failing, the `nth` being the first; whether it got that far.
  static bool RunWithFailures(uint64_t seed, size_t nth, size_t count) {
    TierOptions options;
    options.page_bytes = page_bytes();
    options.diet = diet();
    options.may_leak = call() == HAK_OS_FAKE_UNMAP;
    const std::unique_ptr<Allocator> allocator = tier().make(options);
    Oracle oracle(allocator.get(), tier().small_profile, seed);
    // Memory that cannot be returned is no reason to refuse a request.
    oracle.set_may_refuse(call() == HAK_OS_FAKE_MAP);
    hak_os_fake_fail(call(), nth, count);
    oracle.RunInTurn(ProgramFor(seed));
    const bool failed = hak_os_fake_count(call()) >= nth;
    oracle.FreeAll();
    hak_os_fake_succeed();

    oracle.set_may_refuse(false);
    oracle.RunInTurn(ProgramFor(seed));
    oracle.FreeAll();
    allocator->CheckNothingHeld();
    return failed;
  }

  // As long as there are more points at which a call can fail.
  static void RunWithFailuresAtEachPoint(size_t count) {
    ForEachSeed(1, [&](uint64_t seed) {
      size_t nth = 1;
      while (RunWithFailures(seed, nth, count)) ++nth;
      EXPECT_GT(nth, 1u) << "the program makes no such call";
    });
  }
};

TEST_P(FaultOracle, NothingIsLostWhicheverCallFails) { RunWithFailuresAtEachPoint(1); }

TEST_P(FaultOracle, NothingIsLostFromWhicheverCallOnAllFail) { RunWithFailuresAtEachPoint(SIZE_MAX); }

INSTANTIATE_TEST_SUITE_P(Every, FaultOracle,
                         testing::Combine(testing::ValuesIn(AllTiers()), testing::ValuesIn(kCalls),
                                          testing::Values(4096, 16384, 65536)),
                         [](const testing::TestParamInfo<Parameters> &test) {
                           return std::get<0>(test.param).name + "_" + std::get<1>(test.param).name + "_" +
                                  std::to_string(std::get<2>(test.param));
                         });

}  // namespace
}  // namespace hak_oracle

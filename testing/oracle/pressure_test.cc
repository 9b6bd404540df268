// Random programs on each tier with a budget of memory that they exceed.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "platform/os_fake.h"
#include "superslab/registry.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/program.h"
#include "testing/oracle/seeds.h"
#include "testing/oracle/tiers.h"

namespace hak_oracle {
namespace {

constexpr size_t kMiB = 1024 * 1024;

class PressureOracle : public testing::TestWithParam<Tier> {
 protected:
  // Makes the registry's regions, of which it depends on the addresses that the kernel hands out, downwards, whether
  // one or two are needed: the budget is for the blocks.
  static void CoverWhereTheKernelMaps() {
    const hak_os *os = hak_os_fake();
    void *probe = os->map(nullptr, kMiB);
    const auto address = reinterpret_cast<uintptr_t>(probe);
    for (uintptr_t below : {uintptr_t{0}, 1024 * kMiB}) ASSERT_TRUE(hak_registry_cover(os, address - below));
    os->unmap(probe, kMiB);
  }

  // Runs a program with a budget that it exceeds, and again without.
  static void Run(uint64_t seed, void (Oracle::*run)(const Program &)) {
    const bool huge = GetParam().name == "huge";
    const Program program = RandomProgram(seed, huge ? 300 : 6000, GetParam().profile);
    const std::unique_ptr<Allocator> allocator = GetParam().make({});
    Oracle oracle(allocator.get(), GetParam().profile, seed);
    oracle.set_may_refuse(true);
    CoverWhereTheKernelMaps();
    hak_os_fake_limit(hak_os_fake_mapped_bytes() + (huge ? 48 : 16) * kMiB);
    (oracle.*run)(program);
    const size_t n_served = oracle.n_served();
    EXPECT_GT(oracle.n_refused(), 0u) << "the budget was not felt";
    // What is freed can be had again: the budget holds for what is live, not for what was ever served.
    EXPECT_GT(n_served, program.size() / 20);
    hak_os_fake_succeed();

    oracle.set_may_refuse(false);
    (oracle.*run)(program);
    EXPECT_GT(oracle.n_served(), 2 * n_served);
    oracle.FreeAll();
    allocator->CheckNothingHeld();
  }
};

TEST_P(PressureOracle, WhatIsFreedIsServedAgainAndTheRestOnceThereIsMemory) {
  ForEachSeed(2, [](uint64_t seed) { Run(seed, &Oracle::RunInTurn); });
}

TEST_P(PressureOracle, TheSameHoldsForSeveralThreadsAtOnce) {
  ForEachSeed(2, [](uint64_t seed) { Run(seed, &Oracle::RunConcurrently); });
}

INSTANTIATE_TEST_SUITE_P(Every, PressureOracle, testing::ValuesIn(AllTiers()),
                         [](const auto &test) { return test.param.name; });

}  // namespace
}  // namespace hak_oracle

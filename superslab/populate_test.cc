// The pages of whole SuperSlabs at once: for whom, when, and whether in huge pages.
#include <gtest/gtest.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "platform/os_fake.h"
#include "superslab/pool.h"
#include "superslab/registry.h"
#include "superslab/test_pool.h"

namespace {

using hak_test::kAll;
using hak_test::kSlab;

using Pool = hak_test::PoolTest;

class Populate : public Pool {
 protected:
  // What a process has at least that has an eighth of it populated at once.
  static constexpr size_t kLarge = 8 * HAK_SUPERSLAB_BYTES;

  // A process of `bytes` in use, as the tiers count it.
  void Use(size_t bytes) { hak_retain_took_pages(&pool_.retain, bytes, 0); }
  uintptr_t AcquireHot(size_t n_slabs = 1) { return hak_pool_acquire(&pool_, n_slabs, HAK_DEMAND_MANY, nullptr); }

  // What the kernel says of the mapping at `address`.
  static bool RefusesHugePages(uintptr_t address) {
    std::ifstream maps("/proc/self/smaps");
    bool found = false;
    for (std::string line; std::getline(maps, line);) {
      uintptr_t start, end;
      if (sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2) {
        found = start <= address && address < end;
      } else if (found && line.rfind("VmFlags:", 0) == 0) {
        return line.find(" nh") != std::string::npos;
      }
    }
    ADD_FAILURE() << "not mapped";
    return false;
  }

  static size_t Populated() { return hak_os_fake_populated_bytes(false); }

  void TearDown() override {
    ReleaseAll(taken_);
    Pool::TearDown();
  }

  std::vector<uintptr_t> taken_;
};

TEST_F(Populate, BacksTheSuperslabFromWhichAHotKindIsTheFirstToTake) {
  Use(kLarge);
  for (size_t i = 0; i < kAll; ++i) taken_.push_back(AcquireHot());
  EXPECT_EQ(hak_os_fake_populated_bytes(true), HAK_SUPERSLAB_BYTES);
  taken_.push_back(AcquireHot());
  EXPECT_EQ(hak_os_fake_populated_bytes(true), 2 * HAK_SUPERSLAB_BYTES);
}

TEST_F(Populate, CountsWhatIsNotTakenYetAsUnusedAndGivesItBackAfterTheDecayTime) {
  Use(kLarge);
  taken_.push_back(AcquireHot());
  // So that no descriptors go back with the SuperSlab beside it that is not used.
  const uintptr_t below = taken_[0] - HAK_SUPERSLAB_BYTES;
  const uintptr_t above = taken_[0] + HAK_SUPERSLAB_BYTES;
  for (const uintptr_t address : {below, above}) ASSERT_TRUE(hak_registry_cover(pool_.os, address));
  EXPECT_EQ(pool_.retain.unused_bytes, (kAll - 1) * kSlab);
  EXPECT_EQ(pool_.retain.limit.held_bytes, kAll * kSlab);
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS - 1);
  taken_.push_back(AcquireHot());  // starts the time anew
  hak_os_fake_advance_ms(HAK_POOL_PURGE_DELAY_MS - 1);
  hak_pool_tick(&pool_);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  EXPECT_EQ(pool_.retain.unused_bytes, (kAll - 2) * kSlab);
  EXPECT_EQ(pool_.retain.limit.held_bytes, kAll * kSlab);
  hak_os_fake_advance_ms(1);
  hak_pool_tick(&pool_);
  EXPECT_EQ(hak_os_fake_purged_bytes(), (kAll - 2) * kSlab);
  EXPECT_EQ(pool_.retain.unused_bytes, 0u);
  EXPECT_EQ(pool_.retain.limit.held_bytes, 2 * kSlab);
  for (const uintptr_t address : {below, above}) hak_registry_uncover(pool_.os, address);
}

TEST_F(Populate, IsNotForASmallProcess) {
  Use(kLarge - 1);
  taken_.push_back(AcquireHot());
  EXPECT_EQ(Populated(), 0u);
}

TEST_F(Populate, IsNotWhereAnEighthWouldBeUnused) {
  Use(kLarge);
  hak_retain_add_unused(&pool_.retain, 1);
  taken_.push_back(AcquireHot());
  EXPECT_EQ(Populated(), 0u);
}

TEST_F(Populate, IsNotForAColdKindNorForASuperslabInUse) {
  Use(kLarge);
  taken_.push_back(Acquire(1));
  taken_.push_back(AcquireHot());
  EXPECT_EQ(Populated(), 0u);
}

TEST_F(Populate, IsNotTriedAgainOnceItWasRefused) {
  Use(kLarge);
  hak_os_fake_fail(HAK_OS_FAKE_POPULATE, 1, 1);
  for (size_t i = 0; i < 2 * kAll; ++i) taken_.push_back(AcquireHot());
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_POPULATE), 1u);
}

TEST_F(Populate, StaysBelowAHardLimit) {
  Use(kLarge);
  pool_.retain.limit.max_bytes = HAK_SUPERSLAB_BYTES - 1;
  taken_.push_back(AcquireHot());
  EXPECT_EQ(Populated(), 0u);
}

TEST_F(Populate, UsesNoHugePagesWhereTheyAreSwitchedOff) {
  pool_.thp = HAK_THP_NEVER;
  Use(kLarge);
  taken_.push_back(AcquireHot());
  EXPECT_EQ(hak_os_fake_populated_bytes(true), 0u);
  EXPECT_EQ(Populated(), HAK_SUPERSLAB_BYTES);
  EXPECT_TRUE(RefusesHugePages(taken_[0]));
}

// Where the system gives huge pages to everybody.
TEST_F(Populate, RefusesHugePagesWhereAKindMayUseLittleOfItsRun) {
  Use(kLarge);
  taken_.push_back(Acquire(1));
  EXPECT_TRUE(RefusesHugePages(taken_[0]));
  const uintptr_t whole = hak_pool_acquire(&pool_, kAll, HAK_DEMAND_WHOLE, nullptr);
  EXPECT_FALSE(RefusesHugePages(whole));
  EXPECT_EQ(Populated(), 0u);
  Release(whole, kAll);
}

TEST_F(Populate, BacksEverySuperslabWhereHugePagesAreAlwaysWanted) {
  pool_.thp = HAK_THP_ALWAYS;
  taken_.push_back(Acquire(1));
  EXPECT_EQ(hak_os_fake_populated_bytes(true), HAK_SUPERSLAB_BYTES);
  EXPECT_FALSE(RefusesHugePages(taken_[0]));
}

// What huge pages cost

constexpr uint64_t kSmallNs = 1000000;

class HugePageCost : public Populate {
 protected:
  void SetUp() override {
    Populate::SetUp();
    Use(kLarge);
  }

  static void Take(uint64_t small_ns, uint64_t huge_ns) {
    hak_os_fake_populate_takes(false, small_ns);
    hak_os_fake_populate_takes(true, huge_ns);
  }

  // How many of the next fresh SuperSlabs become huge pages. None stays.
  size_t HugeOf(size_t count) {
    const size_t before = hak_os_fake_populated_bytes(true);
    const size_t all_before = Populated();
    for (size_t i = 0; i < count; ++i) {
      Release(AcquireHot(kAll), kAll);
      hak_pool_trim(&pool_, 0);
    }
    EXPECT_EQ(Populated() - all_before, count * HAK_SUPERSLAB_BYTES);
    return (hak_os_fake_populated_bytes(true) - before) / HAK_SUPERSLAB_BYTES;
  }
};

TEST_F(HugePageCost, CheapOnesAreUsedAlmostEverywhere) {
  Take(kSmallNs, kSmallNs / 5);
  EXPECT_EQ(HugeOf(1), 1u) << "of which nothing is known";
  EXPECT_EQ(HugeOf(1), 0u) << "to know what the other costs";
  EXPECT_GE(HugeOf(200), 197u);
}

TEST_F(HugePageCost, DearOnesAreTriedNowAndThen) {
  Take(kSmallNs, 8 * kSmallNs);
  EXPECT_EQ(HugeOf(1), 1u);
  EXPECT_EQ(HugeOf(128), 0u);
  EXPECT_EQ(HugeOf(129), 1u) << "a sixteenth of the time";
}

TEST_F(HugePageCost, ComeBackWhenTheyHaveBecomeCheap) {
  Take(kSmallNs, 8 * kSmallNs);
  HugeOf(10);
  Take(kSmallNs, kSmallNs / 5);
  EXPECT_GE(HugeOf(200), 200u - 128u);
  EXPECT_GE(HugeOf(100), 98u);
}

TEST_F(HugePageCost, OneThatTookLongEndsThem) {
  Take(kSmallNs, kSmallNs / 5);
  HugeOf(20);
  Take(kSmallNs, 8 * kSmallNs);
  EXPECT_EQ(HugeOf(100), 1u);
}

TEST_F(HugePageCost, DearOnesAreUsedWhereTheOthersAreAsDear) {
  Take(8 * kSmallNs, 8 * kSmallNs);
  EXPECT_GE(HugeOf(100), 90u);
}

// Since small pages are dear now, it does not take 128 of them to try a huge one.
TEST_F(HugePageCost, ComeBackSoonWhenTheOthersHaveBecomeAsDear) {
  Take(kSmallNs, 8 * kSmallNs);
  HugeOf(10);
  Take(8 * kSmallNs, 8 * kSmallNs);
  EXPECT_GE(HugeOf(100), 80u);
}

TEST_F(HugePageCost, MayBeTwiceThatOfTheOthers) {
  Take(kSmallNs, 2 * kSmallNs);
  EXPECT_GE(HugeOf(100), 85u);
  Take(kSmallNs, 2 * kSmallNs + 1);
  EXPECT_LE(HugeOf(100), 5u);
}

TEST_F(HugePageCost, DoesNotMatterWhereTheyAreAlwaysWanted) {
  pool_.thp = HAK_THP_ALWAYS;
  Take(kSmallNs, 100 * kSmallNs);
  EXPECT_EQ(HugeOf(100), 100u);
}

TEST_F(HugePageCost, DoesNotMatterWhereTheyAreSwitchedOff) {
  pool_.thp = HAK_THP_NEVER;
  Take(kSmallNs, 1);
  EXPECT_EQ(HugeOf(100), 0u);
}

TEST_F(HugePageCost, DoesNotMatterWhereTheKernelDoesNotSay) {
  Take(0, 0);
  EXPECT_EQ(HugeOf(100), 100u);
}

// Even where the system gives them to everybody.
TEST_F(Populate, RefusesHugePagesForASmallProcess) {
  Use(HAK_POOL_SMALL_BYTES - 1);
  for (size_t i = 0; i < 2 * kAll; ++i) taken_.push_back(AcquireHot());
  EXPECT_TRUE(RefusesHugePages(taken_[0]));
  EXPECT_TRUE(RefusesHugePages(taken_.back()));
  Use(1);
  taken_.push_back(AcquireHot());
  EXPECT_FALSE(RefusesHugePages(taken_.back()));
}

}  // namespace

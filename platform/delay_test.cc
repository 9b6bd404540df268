// Random delays at the synchronisation points: in checked builds they happen, at each kind of point, as the seed says;
// in all others there are none.
#include "platform/delay.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "base/atomic.h"
#include "platform/lock.h"
#include "platform/os.h"

namespace {

// Whether this build delays.
constexpr bool kDelays = HAK_CONFIG_CHECKED != 0;

// Which of `n_points` calls of `point` delayed, in this thread.
std::vector<bool> Decisions(size_t n_points, void (*point)() = hak_sync_point) {
  std::vector<bool> delayed;
  for (size_t i = 0; i < n_points; ++i) {
    const uint64_t before = hak_delay_count();
    point();
    delayed.push_back(hak_delay_count() != before);
  }
  return delayed;
}

size_t Count(const std::vector<bool> &decisions) {
  size_t n = 0;
  for (bool delayed : decisions) n += delayed;
  return n;
}

std::vector<bool> DecisionsAfterSeed(uint64_t seed) {
  hak_delay_set_seed(seed);
  return Decisions(5000);
}

// Before any test sets another one.
const uint64_t seed_at_start = hak_delay_seed();

TEST(Delay, TheEnvironmentsSeedIsReadInCheckedBuildsAlone) {
  const char *seed = std::getenv("HAKMEM_DELAY_SEED");
  ASSERT_NE(seed, nullptr);
  EXPECT_EQ(seed_at_start, kDelays ? std::stoull(seed) : 0u);
}

TEST(Delay, SomeOfTheSynchronisationPointsDelayInCheckedBuildsAlone) {
  const size_t n = Count(DecisionsAfterSeed(1));
  EXPECT_EQ(n > 20, kDelays) << n;
  EXPECT_LT(n, 500u);
}

TEST(Delay, NoneDelaysWithSeedZero) { EXPECT_EQ(Count(DecisionsAfterSeed(0)), 0u); }

TEST(Delay, ASeedRepeatsItsDecisionsAndAnotherOneMakesOthers) {
  const std::vector<bool> first = DecisionsAfterSeed(1);
  EXPECT_EQ(DecisionsAfterSeed(1), first);
  EXPECT_EQ(DecisionsAfterSeed(2) != first, kDelays);
}

TEST(Delay, EachThreadDecidesForItself) {
  const std::vector<bool> first = DecisionsAfterSeed(1);
  std::vector<bool> second;
  std::thread([&] { second = Decisions(5000); }).join();
  EXPECT_EQ(second != first, kDelays);
}

TEST(Delay, KeepsErrno) {
  hak_delay_set_seed(1);
  errno = EXDEV;
  (void)Decisions(5000);
  EXPECT_EQ(errno, EXDEV);
}

struct Point {
  std::string name;
  void (*pass)();
};

void PrintTo(const Point &point, std::ostream *out) { *out << point.name; }

uint64_t word;
uint64_t expected;
hak_mutex mutex = HAK_MUTEX_INIT;

class EachPoint : public testing::TestWithParam<Point> {};

TEST_P(EachPoint, IsOne) {
  hak_delay_set_seed(1);
  EXPECT_EQ(Count(Decisions(2000, GetParam().pass)) > 0, kDelays);
}

INSTANTIATE_TEST_SUITE_P(
    Is, EachPoint,
    testing::Values(Point{"load_acquire", [] { (void)hak_load_acquire(&word); }},
                    Point{"store_release", [] { hak_store_release(&word, uint64_t{1}); }},
                    Point{"exchange_acquire", [] { (void)hak_exchange_acquire(&word, uint64_t{1}); }},
                    Point{"exchange_acq_rel", [] { (void)hak_exchange_acq_rel(&word, uint64_t{1}); }},
                    Point{"add_release", [] { (void)hak_add_release(&word, uint64_t{1}); }},
                    Point{"cas_release", [] { (void)hak_cas_release(&word, &expected, uint64_t{1}); }},
                    Point{"cas_acquire", [] { (void)hak_cas_acquire(&word, &expected, uint64_t{1}); }},
                    Point{"cas_acq_rel", [] { (void)hak_cas_acq_rel(&word, &expected, uint64_t{1}); }},
                    Point{"cas_relaxed", [] { (void)hak_cas_relaxed(&word, &expected, uint64_t{1}); }},
                    Point{"cas_once", [] { (void)hak_cas_once_acq_rel(&word, &expected, uint64_t{1}); }},
                    Point{"lock",
                          [] {
                            hak_lock(&mutex);
                            hak_unlock(&mutex);
                          }},
                    Point{"barrier", [] { (void)hak_os_linux()->barrier(); }}),
    [](const auto &test) { return test.param.name; });

}  // namespace

// Runs random programs for hours: on each tier and on the router, by one thread at a time and by several at once.
//
//   ./bazelw run --config=release //testing/oracle:soak -- --hours=4 --seed=1
//
// Ends at the first failure, or with a line that says how many programs were run.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "platform/delay.h"
#include "testing/oracle/c_allocator.h"
#include "testing/oracle/failure.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/own_threads.h"
#include "testing/oracle/router.h"
#include "testing/oracle/tiers.h"

ABSL_FLAG(double, hours, 1, "how long to run; 0: until a failure");
ABSL_FLAG(uint64_t, seed, 1, "the first seed; one more for each round over all allocators");
ABSL_FLAG(uint64_t, rounds, 0, "how many rounds at most; 0: no limit");

namespace hak_oracle {
namespace {

// Larger than the tests' by so much.
constexpr size_t kScale = 10;

void RunRound(uint64_t seed) {
  TierOptions options = OptionsForSeed(seed);
  options.lend_metadata = true;
  for (void (Oracle::*run)(const Program &) : {&Oracle::RunInTurn, &Oracle::RunConcurrently}) {
    for (const Tier &tier : AllTiers()) {
      const std::unique_ptr<Allocator> allocator = tier.make(options);
      RunRandomProgram(allocator.get(), tier.profile, seed, kScale * tier.n_operations, run);
    }
  }
  RunRandomProgram(InOwnThreads(MakeRouter()).get(), AllTiersProfile(), seed, kScale * 10000, &Oracle::RunInTurn);
  RunRandomProgram(MakeRouter().get(), AllTiersProfile(), seed, kScale * 50000, &Oracle::RunConcurrently);
}

void Soak() {
  const double hours = absl::GetFlag(FLAGS_hours);
  const absl::Time start = absl::Now();
  const absl::Time end = hours == 0 ? absl::InfiniteFuture() : start + absl::Hours(hours);
  const uint64_t first = absl::GetFlag(FLAGS_seed);
  const uint64_t n_rounds = absl::GetFlag(FLAGS_rounds) == 0 ? UINT64_MAX : absl::GetFlag(FLAGS_rounds);
  uint64_t round = 0;
  for (; round < n_rounds && absl::Now() < end; ++round) {
    AnnounceProgram(absl::StrCat("./bazelw run //testing/oracle:soak -- --rounds=1 --seed=", first + round,
                                 ", with the same --config"));
    hak_delay_set_seed(first + round);
    RunRound(first + round);
  }
  std::printf("no failure in %" PRIu64 " rounds, %s\n", round, absl::FormatDuration(absl::Now() - start).c_str());
}

}  // namespace
}  // namespace hak_oracle

int main(int argc, char **argv) {
  absl::ParseCommandLine(argc, argv);
  hak_oracle::Soak();
}

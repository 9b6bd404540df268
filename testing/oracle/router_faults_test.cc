// A random program on the router while the operating system refuses a call: each of a few thousand, one after the
// other. Whatever was refused, answers stay right, everything is served afterwards, and nothing is lost.
//
// The program runs once. Wherever an operation calls the operating system, copies of the process (forks) do the same
// operation with one of its calls, or all from there on, refused; go on from there; and end. So the time grows with the
// number of points, and not with its square, as it would if the program began anew for each.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"
#include "testing/oracle/allocator.h"
#include "testing/oracle/c_allocator.h"
#include "testing/oracle/failure.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/program.h"
#include "testing/oracle/router.h"
#include "testing/oracle/seeds.h"

namespace hak_oracle {
namespace {

constexpr size_t kOperations = 20000;

// The program ends after so many points; so many failures of each kind of call there are at least.
constexpr size_t kPoints = 1000;
constexpr size_t kFailuresOfAKind = 25;

// So many operations are done under failure, as far as the failures last, and once the system works again.
constexpr size_t kOperationsAfter = 8;

// Regions of the registry, and the metadata of heaps, stay mapped.
constexpr size_t kMetadataBytesMax = HAK_SUPERSLAB_BYTES;

// Little is live, so that a copy of the process costs little, and much calls the operating system: large blocks, trims,
// the passing of time.
Profile FaultProfile() {
  constexpr size_t kKiB = 1024;
  constexpr size_t kMiB = 1024 * kKiB;
  return {1,
          12,
          {{4, 0, 1 * kKiB},
           {4, 1 * kKiB, 32 * kKiB},
           {4, 32 * kKiB, 128 * kKiB},
           {1, 128 * kKiB, 2 * kMiB},
           {4, 2 * kMiB, 3 * kMiB}},
          4 * kMiB,
          // malloc calloc resize check trim wait end free
          {{70, 4, 120, 2, 160, 120, 0, 60}}};
}

constexpr hak_os_fake_call kKinds[] = {HAK_OS_FAKE_MAP, HAK_OS_FAKE_UNMAP, HAK_OS_FAKE_PURGE, HAK_OS_FAKE_REMAP};

// What the copies of the process tell; one at a time writes.
struct Findings {
  std::array<uint32_t, kOperations> n_calls;       // of each operation
  std::array<size_t, HAK_OS_FAKE_CALLS> n_failed;  // by kind
  size_t n_refused;
};

class RouterFaultOracle : public testing::Test {
 protected:
  RouterFaultOracle()
      : findings_(static_cast<Findings *>(
            mmap(nullptr, sizeof(Findings), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~RouterFaultOracle() override { munmap(findings_, sizeof(Findings)); }

  // Runs `run` in a copy of the process. Without the handlers of fork: the copy is as the process is, and of its
  // threads only this one counts.
  template <typename F>
  static void InCopy(F run) {
    const pid_t copy = _Fork();
    ASSERT_GE(copy, 0);
    if (copy == 0) {
      run();
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(copy, &status, 0), copy);
    ASSERT_EQ(status, 0);
  }

  static Program Part(const Program &program, size_t first, size_t count) {
    const size_t end = std::min(first + count, program.size());
    return Program(program.begin() + static_cast<ptrdiff_t>(first), program.begin() + static_cast<ptrdiff_t>(end));
  }

  void CountCallsOfEachOperation(const Program &program, Oracle *oracle) {
    InCopy([&] {
      for (size_t i = 0; i < program.size(); ++i) {
        const size_t before = hak_os_fake_count(HAK_OS_FAKE_ANY);
        oracle->RunInTurn(Part(program, i, 1));
        findings_->n_calls[i] = static_cast<uint32_t>(hak_os_fake_count(HAK_OS_FAKE_ANY) - before);
      }
    });
  }

  static void CheckNothingLost(Allocator *allocator) {
    allocator->CheckNothingHeld();
    // Where the ends of a mapping cannot be given back, hak_os_map_aligned cannot keep them either.
    if (hak_os_fake_failed_count(HAK_OS_FAKE_UNMAP) != 0) return;
    size_t region_bytes = 0;
    for (const uint64_t &offset : hak_registry.region_offset) {
      if (hak_load_relaxed(&offset) != 0) region_bytes += sizeof(hak_region);
    }
    const size_t lost_bytes = hak_os_fake_mapped_bytes() - region_bytes;
    if (lost_bytes > kMetadataBytesMax) Fail(absl::StrCat(lost_bytes, " bytes are still mapped"));
  }

  // In a copy of the process: operation `i` and some that follow, with `count` calls failing from the `nth` of the
  // operation on; then the same again, and the end.
  void RunWithFailures(const Program &program, size_t i, size_t nth, size_t count, Allocator *allocator,
                       Oracle *oracle) {
    hak_os_fake_fail(HAK_OS_FAKE_ANY, nth, count);
    // A single refusal is made up for: by another tier, or after a trim.
    oracle->set_may_refuse(count > 1);
    oracle->RunInTurn(Part(program, i, kOperationsAfter));
    hak_os_fake_succeed();
    if (hak_os_fake_failed_count(HAK_OS_FAKE_ANY) == 0) Fail("no call has failed");

    oracle->set_may_refuse(false);
    oracle->RunInTurn(Part(program, i, kOperationsAfter));
    oracle->FreeAll();
    CheckNothingLost(allocator);
    for (hak_os_fake_call kind : kKinds) findings_->n_failed[kind] += hak_os_fake_failed_count(kind);
    findings_->n_refused += oracle->n_refused();
  }

  // The number of points at which a call can fail.
  size_t RunWithFailuresAtEachPoint(uint64_t seed, size_t count) {
    const std::unique_ptr<Allocator> allocator = MakeRouter(hak_os_fake_advance_ms);
    const Profile profile = FaultProfile();
    const Program program = RandomProgram(seed, kOperations, profile);
    Oracle oracle(allocator.get(), profile, seed);
    CountCallsOfEachOperation(program, &oracle);
    size_t n_points = 0;
    for (size_t i = 0; i < program.size() && n_points < kPoints && !HasFailure(); ++i) {
      for (size_t nth = 1; nth <= findings_->n_calls[i]; ++nth) {
        SCOPED_TRACE(absl::StrCat("operation ", i, ", from its call ", nth, " on"));
        InCopy([&] { RunWithFailures(program, i, nth, count, allocator.get(), &oracle); });
        ++n_points;
      }
      const size_t before = hak_os_fake_count(HAK_OS_FAKE_ANY);
      oracle.RunInTurn(Part(program, i, 1));
      EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_ANY) - before, findings_->n_calls[i]) << "operation " << i;
    }
    oracle.FreeAll();
    CheckNothingLost(allocator.get());
    return n_points;
  }

  void ExpectFailuresOfEachKind() const {
    for (hak_os_fake_call kind : kKinds) EXPECT_GE(findings_->n_failed[kind], kFailuresOfAKind) << "of kind " << kind;
  }

  Findings *const findings_;
};

TEST_F(RouterFaultOracle, AnySingleCallThatFailsIsMadeUpFor) {
  ForEachSeed(1, [&](uint64_t seed) {
    EXPECT_GE(RunWithFailuresAtEachPoint(seed, 1), kPoints);
    ExpectFailuresOfEachKind();
    EXPECT_EQ(findings_->n_refused, 0u);
  });
}

TEST_F(RouterFaultOracle, NothingIsLostWhereFiveCallsInARowFail) {
  ForEachSeed(1, [&](uint64_t seed) {
    EXPECT_GE(RunWithFailuresAtEachPoint(seed, 5), kPoints);
    ExpectFailuresOfEachKind();
  });
}

TEST_F(RouterFaultOracle, NothingIsLostFromWhicheverCallOnAllFail) {
  ForEachSeed(1, [&](uint64_t seed) {
    EXPECT_GE(RunWithFailuresAtEachPoint(seed, SIZE_MAX), kPoints);
    ExpectFailuresOfEachKind();
    EXPECT_GT(findings_->n_refused, 0u) << "too little is refused to prove anything";
  });
}

}  // namespace
}  // namespace hak_oracle

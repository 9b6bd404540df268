// A fuzz target: the input is a program on one tier, HAK_FUZZ_TIER, over the fake operating system.
//
//    0                        1                            2              3             4
//   +------------------------+----------------------------+--------------+-------------+----------------------+
//   | bits 0, 1: page size   | bits 0, 1: call that fails | at which     | MiB that it | operations, 8 bytes  |
//   | bit 2: diet            | bit 7: all from there on   | call         | may map; 0: | each                 |
//   |                        |                            | (from 0 on)  | no limit    | (oracle/program.h)   |
//   +------------------------+----------------------------+--------------+-------------+----------------------+
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "absl/types/span.h"
#include "platform/os_fake.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/program.h"
#include "testing/oracle/tiers.h"

namespace hak_oracle {
namespace {

constexpr size_t kHeaderBytes = 4;
constexpr size_t kMiB = 1024 * 1024;

const Tier &FuzzedTier() {
  for (const Tier &tier : AllTiers()) {
    if (tier.name == HAK_FUZZ_TIER) return tier;
  }
  std::abort();
}

void Run(absl::Span<const uint8_t> input) {
  if (input.size() < kHeaderBytes) return;
  static constexpr size_t kPageBytes[] = {4096, 16384, 65536, 4096};
  // Not unmap: what cannot be unmapped would pile up in the fuzzer's process.
  static constexpr hak_os_fake_call kCalls[] = {HAK_OS_FAKE_CALLS, HAK_OS_FAKE_MAP, HAK_OS_FAKE_PURGE,
                                                HAK_OS_FAKE_REMAP};
  TierOptions options;
  options.page_bytes = kPageBytes[input[0] & 3];
  options.diet = (input[0] & 4) != 0;
  options.lend_metadata = true;
  const hak_os_fake_call call = kCalls[input[1] & 3];
  const bool all = (input[1] & 0x80) != 0;
  const size_t nth = 1 + size_t{input[2]};
  const size_t limit_mib = input[3];

  const Tier &tier = FuzzedTier();
  const std::unique_ptr<Allocator> allocator = tier.make(options);
  Oracle oracle(allocator.get(), tier.small_profile, 1);
  oracle.set_may_refuse(call == HAK_OS_FAKE_MAP || limit_mib != 0);
  if (call != HAK_OS_FAKE_CALLS) hak_os_fake_fail(call, nth, all ? SIZE_MAX : 1);
  if (limit_mib != 0) hak_os_fake_limit(limit_mib * kMiB);
  oracle.RunInTurn(DecodeProgram(input.subspan(kHeaderBytes), tier.small_profile));
  oracle.FreeAll();
  hak_os_fake_succeed();
  allocator->CheckNothingHeld();
}

}  // namespace
}  // namespace hak_oracle

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  hak_oracle::Run({data, size});
  return 0;
}

// A fuzz target: the input is a program of several threads on the router. It has the header of the tiers' inputs, which
// means nothing here, so that all targets share their inputs.
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "testing/oracle/c_allocator.h"
#include "testing/oracle/oracle.h"
#include "testing/oracle/own_threads.h"
#include "testing/oracle/program.h"
#include "testing/oracle/router.h"

namespace hak_oracle {
namespace {

constexpr size_t kHeaderBytes = 4;

void Run(absl::Span<const uint8_t> input) {
  if (input.size() < kHeaderBytes) return;
  const Profile profile = SmallAllTiersProfile();
  const std::unique_ptr<Allocator> allocator = InOwnThreads(MakeRouter());
  Oracle oracle(allocator.get(), profile, 1);
  oracle.RunInTurn(DecodeProgram(input.subspan(kHeaderBytes), profile));
  oracle.FreeAll();
  allocator->CheckNothingHeld();
}

}  // namespace
}  // namespace hak_oracle

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  hak_oracle::Run({data, size});
  return 0;
}

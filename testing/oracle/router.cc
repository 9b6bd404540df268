#include "testing/oracle/router.h"

#include "absl/strings/str_cat.h"
#include "router/hakmem.h"
#include "testing/oracle/c_allocator.h"
#include "testing/oracle/failure.h"

namespace hak_oracle {
namespace {

// Nothing in the process uses hakmem but the programs.
void CheckNothingHeld() {
  hak_trim(0);
  hak_stats stats;
  hak_stats_read(&stats);
  const size_t bytes = stats.superslab_bytes + stats.huge_bytes + stats.huge_cached_bytes + stats.held_bytes;
  if (bytes != 0) {
    Fail(absl::StrCat("still held: ", stats.superslab_bytes, " bytes of SuperSlabs, ", stats.huge_bytes, " and ",
                      stats.huge_cached_bytes, " of Huge; counted for a limit: ", stats.held_bytes));
  }
}

}  // namespace

std::unique_ptr<Allocator> MakeRouter(void (*wait)(uint64_t ms)) {
  return MakeCAllocator({hak_malloc, hak_calloc, hak_realloc, hak_aligned_alloc, hak_posix_memalign, hak_free,
                         hak_usable_size, hak_trim, hak_owner, CheckNothingHeld, wait});
}

}  // namespace hak_oracle

#include "testing/oracle/pool_allocator.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "platform/os.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"
#include "testing/oracle/failure.h"

namespace hak_oracle {
namespace {

// Metadata of heaps stays mapped as long as a pool lives: 64 KiB for every ten heaps or so.
constexpr size_t kMetadataBytesMax = HAK_SUPERSLAB_BYTES - 1;

// Lent, for about 40 heaps; the pool wants it zeroed and aligned to 64.
constexpr size_t kLentBytes = 256 * 1024;

// Regions of the registry stay as long as the process.
size_t CountRegions() {
  size_t n = 0;
  for (const uint64_t &offset : hak_registry.region_offset) n += hak_load_relaxed(&offset) != 0;
  return n;
}

// So that every program starts from nothing, and the mapping of regions is refused in its turn: no allocator is alive.
void ForgetRegions() {
  for (uint64_t &offset : hak_registry.region_offset) {
    if (hak_load_relaxed(&offset) == 0) continue;
    char *region = reinterpret_cast<char *>(&hak_registry) + offset * sizeof(uint32_t);
    hak_os_linux()->unmap(region, sizeof(hak_region));
    hak_store_relaxed(&offset, uint64_t{0});
  }
}

const hak_os *StartFake(size_t page_bytes) {
  hak_os_fake_reset(page_bytes);
  return hak_os_fake();
}

}  // namespace

PoolAllocator::PoolAllocator(const TierOptions &options) : options_(options) {
  ForgetRegions();
  hak_pool_init(&pool_, StartFake(options.page_bytes));
  if (options.diet) pool_.retain.delay_ms = pool_.retain.min_bytes = 0;
  if (options.lend_metadata) {
    metadata_.reset(static_cast<char *>(std::aligned_alloc(64, kLentBytes)));
    std::memset(metadata_.get(), 0, kLentBytes);
    pool_.meta_next = metadata_.get();
    pool_.meta_end = metadata_.get() + kLentBytes;
  }
}

PoolAllocator::~PoolAllocator() { hak_pool_destroy(&pool_); }

void PoolAllocator::CheckNothingHeld() {
  ReturnAll();
  hak_pool_trim(&pool_, 0);
  if (pool_.n_slabs_used != 0) Fail(absl::StrCat(pool_.n_slabs_used, " slabs are still in use"));
  if (pool_.n_superslabs != 0) Fail(absl::StrCat(pool_.n_superslabs, " SuperSlabs are still mapped"));
  const size_t region_bytes = CountRegions() * sizeof(hak_region);
  const size_t other_bytes = hak_os_fake_mapped_bytes() - region_bytes;
  if (!options_.may_leak && other_bytes > kMetadataBytesMax) Fail(absl::StrCat(other_bytes, " bytes are still mapped"));
}

}  // namespace hak_oracle

#include "superslab/registry.h"

#include <assert.h>

#include "superslab/superslab.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "hak_registry_kind reads the low byte first");

static_assert(sizeof(struct hak_superslab) == HAK_DESCRIPTOR_BYTES, "one cache line each");
static_assert(sizeof(struct hak_region) % ((size_t)64 * 1024) == 0, "a region is whole pages of any size");

HAK_HIDDEN struct hak_registry hak_registry __attribute__((aligned(64)));

bool hak_registry_cover(const struct hak_os *os, uintptr_t address) {
  if (address >> HAK_ADDRESS_BITS != 0) return false;
  uint64_t *slot = &hak_registry.region_offset[address >> HAK_REGION_SHIFT];
  if (hak_load_acquire(slot) != 0) return true;
  struct hak_region *region = hak_os_map_metadata(os, sizeof *region);
  if (region == NULL) return false;
  // A huge page here would back descriptors of address space that is not in use.
  os->huge_pages(region, sizeof *region, false);
  // Unsigned: the region may lie below the registry, and the sum wraps back to it.
  uint64_t offset = ((uintptr_t)region - (uintptr_t)&hak_registry) / sizeof(uint32_t);
  uint64_t expected = 0;
  // Release: publishes the zeroed region. Readers need no acquire: who holds a block got it from a thread that had.
  if (!hak_cas_once_acq_rel(slot, &expected, offset)) {
    hak_os_unmap_metadata(os, region, sizeof *region);
  }
  return true;
}

void hak_registry_set(uintptr_t base, size_t n_slabs, uint32_t entry) {
  uint32_t *entries = hak_registry_entry((const void *)base);
  for (size_t i = 0; i < n_slabs; ++i) hak_store_relaxed(&entries[i], entry);
}

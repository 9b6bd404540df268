#include "superslab/registry.h"

#include <assert.h>

#include "superslab/superslab.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "hak_registry_kind reads the low byte first");

static_assert(sizeof(struct hak_superslab) == offsetof(struct hak_superslab_slot, n_covers), "it fits");
static_assert(sizeof(struct hak_superslab_slot) == HAK_DESCRIPTOR_BYTES, "one cache line each");
static_assert(sizeof(struct hak_region) % ((size_t)64 * 1024) == 0, "a region is whole pages of any size");

HAK_HIDDEN struct hak_registry hak_registry __attribute__((aligned(64)));
HAK_HIDDEN struct hak_mutex hak_registry_lock = HAK_MUTEX_INIT;

// Makes sure that the region of `address` exists.
static bool make_region(const struct hak_os *os, uintptr_t address) {
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

// Sections: what covers are counted for, since the memory that belongs to a single SuperSlab makes no whole page. A
// mapping counts from before the first descriptor in it is written until after the last: who finds none under the lock
// knows that nobody writes.

static uint64_t *n_covers_of(uintptr_t address) HAK_REQUIRES(hak_registry_lock) {
  size_t section = (uint32_t)address >> HAK_SECTION_SHIFT;
  return &hak_region_of(address)->superslab[section << (HAK_SECTION_SHIFT - HAK_SUPERSLAB_SHIFT)].n_covers;
}

static void purge_whole_pages(const struct hak_os *os, void *start, size_t bytes) {
  if (((uintptr_t)start | bytes) % os->page_bytes == 0) (void)os->purge(start, bytes);
}

static void purge_section(const struct hak_os *os, uintptr_t address) HAK_REQUIRES(hak_registry_lock) {
  struct hak_region *region = hak_region_of(address);
  size_t first = (size_t)((uint32_t)address >> HAK_SECTION_SHIFT) * HAK_SECTION_SLABS;
  purge_whole_pages(os, &region->entry[first], HAK_SECTION_SLABS * sizeof *region->entry);
  purge_whole_pages(os, &region->slab_private[first], HAK_SECTION_SLABS * HAK_DESCRIPTOR_BYTES);
  purge_whole_pages(os, &region->slab_shared[first], HAK_SECTION_SLABS * HAK_DESCRIPTOR_BYTES);
  if (HAK_CONFIG_HARDENED) {
    size_t n_words = HAK_SECTION_SLABS << (HAK_SLAB_SHIFT - HAK_IN_USE_WORD_SHIFT);
    size_t first_word = first << (HAK_SLAB_SHIFT - HAK_IN_USE_WORD_SHIFT);
    purge_whole_pages(os, &region->in_use[first_word], n_words * sizeof *region->in_use);
  }
}

bool hak_registry_cover(const struct hak_os *os, uintptr_t address) {
  if (address >> HAK_ADDRESS_BITS != 0 || !make_region(os, address)) return false;
  hak_lock(&hak_registry_lock);
  ++*n_covers_of(address);
  hak_unlock(&hak_registry_lock);
  return true;
}

void hak_registry_uncover(const struct hak_os *os, uintptr_t address) {
  hak_lock(&hak_registry_lock);
  if (--*n_covers_of(address) == 0) purge_section(os, address);
  hak_unlock(&hak_registry_lock);
}

void hak_registry_set(uintptr_t base, size_t n_slabs, uint32_t entry) {
  uint32_t *entries = hak_registry_entry((const void *)base);
  for (size_t i = 0; i < n_slabs; ++i) hak_store_relaxed(&entries[i], entry);
}

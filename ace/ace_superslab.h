// One SuperSlab of ACE: which of its 512 pages are free, and where its extents start. Internal to ace/.
#ifndef HAKMEM_ACE_ACE_SUPERSLAB_H_
#define HAKMEM_ACE_ACE_SUPERSLAB_H_

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ace/ace_class.h"
#include "platform/os.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

struct hak_ace_arena;

#define HAK_ACE_WORDS (HAK_ACE_SUPERSLAB_PAGES / 64)

// The descriptor takes the place of the shared slab descriptors of the SuperSlab; the private ones hold the words of
// its pages (ace_inline.h).
//
//   0      8       16     24     32           40           48         56       58    60        62     64
//   +------+-------+------+------+------------+------------+----------+--------+-----+---------+------+----------+
//   | base | arena | next | prev | dirty_next | dirty_prev | freed_ms | n_free | run | n_dirty | flag | dirty[8] |
//   +------+-------+------+------+------------+------------+----------+--------+-----+---------+------+----------+
//
// All of it is guarded by the arena's lock, but base and arena do not change while an extent is in use.
// Invariants: n_free is the number of pages in free runs; run is the length of the longest; no two free runs touch;
// n_dirty is the number of dirty pages, and all pages that are not free are dirty.
struct hak_ace_superslab {
  uintptr_t base;
  struct hak_ace_arena *arena;
  struct hak_ace_superslab *next, *prev;
  struct hak_ace_superslab *dirty_next, *dirty_prev;
  uint64_t freed_ms;  // when an extent was last freed
  uint16_t n_free;
  uint16_t run;
  uint16_t n_dirty;
  bool in_dirty_list;
  uint64_t dirty[HAK_ACE_WORDS];  // bit set: the page was handed out since it was mapped or purged
};

static_assert(sizeof(struct hak_ace_superslab) <= HAK_SUPERSLAB_SLABS * HAK_DESCRIPTOR_BYTES, "the place it takes");
static_assert(HAK_ACE_SUPERSLAB_PAGES * sizeof(uint32_t) == HAK_SUPERSLAB_SLABS * HAK_DESCRIPTOR_BYTES,
              "the place the words of the pages take");
static_assert(offsetof(struct hak_ace_superslab, freed_ms) == 48, "as drawn");
static_assert(offsetof(struct hak_ace_superslab, dirty) == 64, "as drawn");

// The descriptor of the SuperSlab of ACE that holds `p`.
static inline struct hak_ace_superslab *hak_ace_superslab_of(const void *p) {
  return (struct hak_ace_superslab *)hak_slab_shared_descriptor((uintptr_t)p & ~(uintptr_t)(HAK_SUPERSLAB_BYTES - 1));
}

static inline size_t hak_ace_page_of(const void *p) {
  return ((uintptr_t)p >> HAK_ACE_PAGE_SHIFT) & (HAK_ACE_SUPERSLAB_PAGES - 1);
}

static inline void *hak_ace_page_address(const struct hak_ace_superslab *superslab, size_t page) {
  return (void *)(superslab->base + (page << HAK_ACE_PAGE_SHIFT));
}

// Makes the descriptor of the SuperSlab at `base`, all of whose pages are free; `zeroed` says that they are clean.
struct hak_ace_superslab *hak_ace_superslab_init(uintptr_t base, struct hak_ace_arena *arena, bool zeroed);

// The functions below are called with the arena's lock held, and keep words, n_free and run.

// Makes an extent of `n_pages` pages out of the free run that fits best, at a multiple of `align_pages` (a power of
// two) from the start of the SuperSlab. The caller knows that such a run exists. *zeroed (may be NULL) tells if none of
// the pages was dirty.
void *hak_ace_superslab_take(struct hak_ace_superslab *superslab, size_t n_pages, size_t align_pages, bool *zeroed);

// Makes the extent, live or cached, free.
void hak_ace_superslab_put(struct hak_ace_superslab *superslab, void *extent);

// Makes the live extent `n_pages` long; false, and nothing has changed, if the pages that it would need are not free.
bool hak_ace_superslab_resize(struct hak_ace_superslab *superslab, void *extent, size_t n_pages);

// Returns the free dirty pages to the operating system, as far as they make whole pages of it; the number of bytes.
size_t hak_ace_superslab_purge(struct hak_ace_superslab *superslab, const struct hak_os *os);

// The number of pages that are free and dirty.
static inline size_t hak_ace_superslab_free_dirty(const struct hak_ace_superslab *superslab) {
  return (size_t)superslab->n_dirty + superslab->n_free - HAK_ACE_SUPERSLAB_PAGES;
}

// Whether the page at `p` lies in a free run or a cached extent.
bool hak_ace_superslab_is_unused(const struct hak_ace_superslab *superslab, const void *p);

#endif  // HAKMEM_ACE_ACE_SUPERSLAB_H_

// A SuperSlab: 2 MiB of address space in 32 slabs, and which of them are free. Internal to superslab/.
#ifndef HAKMEM_SUPERSLAB_SUPERSLAB_H_
#define HAKMEM_SUPERSLAB_SUPERSLAB_H_

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_SUPERSLAB_ALL_FREE UINT32_MAX

//   0        8          12         16        24        32          40          48            56
//   +--------+----------+----------+---------+---------+-----------+-----------+-------------+
//   | base   | free map |dirty map | used_ms |  next   |  prev     |  younger  |   older     |
//   +--------+----------+----------+---------+---------+-----------+-----------+-------------+
//
// All fields belong to the pool and are guarded by its lock. Invariants:
//   free_map == 0         <=> in no list of the pool
//   dirty_map & ~free_map == 0: only free slabs count as dirty, that is, as holding pages that could be purged
//   dirty_map != 0, or all free <=> in the pool's list of unused SuperSlabs
struct hak_superslab {
  uintptr_t base;
  uint32_t free_map;      // bit i: slab i is free
  uint32_t dirty_map;     // bit i: slab i is free and may hold pages
  uint64_t used_ms : 63;  // unused: when a slab was last taken or freed
  bool refuses_huge_pages : 1;
  struct hak_superslab *next, *prev;
  struct hak_superslab *younger, *older;  // unused
};

static_assert(sizeof(struct hak_superslab) == 56, "a cache line, but for what the registry has there");
static_assert(offsetof(struct hak_superslab, next) == 24, "as drawn");

// A bitmap of the positions where `n_slabs` free slabs lie side by side, aligned to their number; n_slabs is a power
// of two from 1 to 32.
static inline uint32_t hak_superslab_runs(uint32_t free_map, size_t n_slabs) {
  static const uint32_t aligned[] = {0xffffffffu, 0x55555555u, 0x11111111u, 0x01010101u, 0x00010001u, 0x00000001u};
  unsigned order = 0;
  for (size_t width = 1; width < n_slabs; width *= 2, ++order) free_map &= free_map >> width;
  return free_map & aligned[order];
}

// The bits of the run of `n_slabs` slabs that starts at slab `first`.
static inline uint32_t hak_superslab_mask(size_t first, size_t n_slabs) { return (uint32_t)hak_bits(first, n_slabs); }

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_SUPERSLAB_SUPERSLAB_H_

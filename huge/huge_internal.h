// What the files of huge/ share: the descriptor of a mapping, and what huge.c asks of huge_mapping.c, and both of
// huge_cache.c.
#ifndef HAKMEM_HUGE_HUGE_INTERNAL_H_
#define HAKMEM_HUGE_HUGE_INTERNAL_H_

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "huge/huge.h"
#include "platform/lock.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

// Every mapping starts at such a multiple: page tables move by whole entries, and huge pages fit.
#define HAK_HUGE_ALIGNMENT HAK_SUPERSLAB_BYTES

// The descriptor of a mapping, in the private slab descriptor of its first slab.
//
//   0       8        16      24      32           40       48            56      57         60
//   +-------+--------+-------+-------+------------+--------+-------------+-------+----------+------------+
//   | base  | bytes  | next  | prev  |  freed_ms  | origin | guard_bytes | clean | (unused) | rest_bytes |
//   +-------+--------+-------+-------+------------+--------+-------------+-------+----------+------------+
//
// base and origin are fixed. bytes belongs to the block's owner while the block lives and to the lock's holder while it
// is cached. The rest is guarded by the lock. A mapping is in one of the heap's three lists, live, cached or refused,
// or in the hands of the one thread that makes, moves or unmaps it; its registry entry is set exactly while it is live.
struct hak_huge {
  uintptr_t base;
  size_t bytes;  // atomic, relaxed: hak_huge_misuse_reason reads those of others
  struct hak_huge *next, *prev;
  uint64_t freed_ms;
  // The parts of what was once mapped by one call have the same number: the kernel remaps only within one of its areas.
  uint64_t origin;
  size_t guard_bytes;   // hardened: behind `bytes`, out of the program's reach
  bool clean;           // cached, and known to be zero
  uint32_t rest_bytes;  // live: the pages beyond the request that were kept
};

static_assert(sizeof(struct hak_huge) == HAK_DESCRIPTOR_BYTES, "a slab descriptor");
static_assert(offsetof(struct hak_huge, freed_ms) == 32, "as drawn");
static_assert(offsetof(struct hak_huge, rest_bytes) == 60, "as drawn");

// The descriptor of a mapping that starts at `p`. The region of `p` is covered.
static inline struct hak_huge *hak_huge_descriptor(const void *p) {
  return (struct hak_huge *)hak_slab_private_descriptor((uintptr_t)p);
}

static inline size_t hak_huge_bytes(const struct hak_huge *mapping) { return hak_load_relaxed(&mapping->bytes); }

// huge_mapping.c: one mapping and the operating system. The mapping is in the caller's hands, or the caller owns the
// live block that it is. Called without the lock; cost: system calls. `bytes` is a multiple of a page, `alignment` a
// power of two, HAK_HUGE_ALIGNMENT at least. The limit (superslab/limit.h) is kept here.

// A new mapping with `bytes` for the program, in no list; NULL when the operating system has no memory, or the limit
// does not allow for it.
struct hak_huge *hak_huge_mapping_make(struct hak_huge_heap *heap, size_t bytes, size_t alignment);

// Makes a mapping out of the cache `bytes` long or a little longer: it, or the one to which its pages have moved. NULL,
// and it is cached again, when it cannot be.
struct hak_huge *hak_huge_mapping_adjust(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes,
                                         size_t alignment);

// Makes the mapping zero by giving its pages back, unless the kernel refuses: for a large one as dear as fresh pages,
// which would be held beside them.
void hak_huge_mapping_zero(struct hak_huge_heap *heap, struct hak_huge *mapping);

// Makes the mapping `bytes` long where it is. False, and it is as it was, if the kernel cannot or the limit refuses.
bool hak_huge_mapping_grow(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes);

// Moves the pages of the mapping, which is in no list, to a new range of `bytes`. The descriptor there, or NULL; then
// the mapping is as it was.
struct hak_huge *hak_huge_mapping_move(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes);

// Takes what is beyond `bytes` away from the program, if it is much and the kernel does not refuse.
void hak_huge_mapping_shrink(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes);

// Unmaps the mappings of a list that is linked by `next`, without the lock; the number of bytes. What the kernel will
// not unmap is refused from then on, without its pages.
size_t hak_huge_mappings_unmap(struct hak_huge_heap *heap, struct hak_huge *list);

// huge_cache.c: the lists of freed mappings, the cached and the refused ones. Called with the lock. What is taken out
// of a list is in the caller's hands; more than one are linked by `next`.

// Caches the mapping, together with cached neighbours that are parts of the same one.
void hak_huge_cache_add_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) HAK_REQUIRES(heap->lock);

// Takes the cached mapping that suits best for `bytes`, or a refused one where that is too small; NULL if there is
// none. Where zeroed memory is wanted, none that would be grown and then cleared.
struct hak_huge *hak_huge_cache_take_best_locked(struct hak_huge_heap *heap, size_t bytes, size_t alignment,
                                                 bool want_zeroed) HAK_REQUIRES(heap->lock);

// Takes the longest unused mappings until the cache is within the limits.
struct hak_huge *hak_huge_cache_evict_locked(struct hak_huge_heap *heap, size_t limit_bytes, size_t limit_mappings)
    HAK_REQUIRES(heap->lock);

// Takes the mappings that were cached for longer than the decay time.
struct hak_huge *hak_huge_cache_evict_expired_locked(struct hak_huge_heap *heap, uint64_t now) HAK_REQUIRES(heap->lock);

// Takes the longest unused mappings for as long as the process keeps too much. Guards hold no pages.
struct hak_huge *hak_huge_cache_evict_excess_locked(struct hak_huge_heap *heap) HAK_REQUIRES(heap->lock);

// How long what was kept is not given back though it has become too much: a program in phases, at whose peaks the limit
// ends, uses it again soon. And how often somebody looks.
#define HAK_HUGE_EXCESS_GRACE_MS 20

// Takes the longest unused mapping that holds pages, if it is to be given back since the process keeps `excess_bytes`
// too much; else NULL.
struct hak_huge *hak_huge_cache_take_excess_locked(struct hak_huge_heap *heap, size_t excess_bytes, uint64_t now)
    HAK_REQUIRES(heap->lock);

// Keeps a mapping that the kernel would not unmap. Where a process has as many mappings as the kernel allows, each
// unmapping in the middle of one is refused, and tried again it would be refused again: so these are apart from the
// others, for a request that finds nothing else, or a trim.
void hak_huge_refused_add_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) HAK_REQUIRES(heap->lock);

// Takes at most `n` refused mappings.
struct hak_huge *hak_huge_refused_take_locked(struct hak_huge_heap *heap, size_t n) HAK_REQUIRES(heap->lock);

// Takes a refused mapping that is zero and consists of whole SuperSlabs; NULL if there is none.
struct hak_huge *hak_huge_refused_take_superslabs_locked(struct hak_huge_heap *heap) HAK_REQUIRES(heap->lock);

#endif  // HAKMEM_HUGE_HUGE_INTERNAL_H_

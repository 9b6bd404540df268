// Huge: requests of 2 MiB and up, and every alignment over 1 MiB. Each block is a mapping of its own, aligned to 2 MiB;
// it grows and moves by remapping its pages, never by copying, and a freed one is kept for a while for the next
// request. README.md walks through one malloc and one free.
#ifndef HAKMEM_HUGE_HUGE_H_
#define HAKMEM_HUGE_HUGE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "platform/lock.h"
#include "superslab/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hak_huge;

// The tier's state. The fields belong to the files of huge/. Lock rank: beside the arenas of ACE, never held together
// with them.
struct hak_huge_heap {
  struct hak_pool *pool;
  const struct hak_os *os;
  bool diet;
  struct hak_mutex lock;
  struct hak_huge *live;                        // blocks in use
  struct hak_huge *cached_first, *cached_last;  // freed mappings, the longest unused first
  size_t n_cached;
  size_t cached_bytes;       // a statistic as well; atomic, written under the lock
  struct hak_huge *refused;  // freed mappings that the kernel would not unmap, linked by `next`: mostly without pages
  size_t refused_bytes;      // a statistic as well, to be read under the lock
  size_t rest_bytes;         // atomic, relaxed: pages of live blocks that their requests do not need
  uintptr_t last_mapped;     // atomic, relaxed: where the next mapping would be a neighbour
  uint64_t n_origins;        // atomic, relaxed: mappings made
  uint64_t excess_ms;        // atomic, relaxed: when hak_huge_return_excess last looked
  // Statistics, readable without the lock: atomic, relaxed.
  size_t n_live;
  size_t live_bytes;
};

// Prepares an empty heap, which maps through the pool's operating system and shares the pool's decay time. With `diet`,
// freed mappings leave at once. Not thread-safe, the rest is.
void hak_huge_init(struct hak_huge_heap *heap, struct hak_pool *pool, bool diet);

// Unmaps what is cached and forgets the rest. For tests.
void hak_huge_destroy(struct hak_huge_heap *heap);

// Returns a block of at least `size` bytes (any size; 0 counts as 1) at a multiple of 2 MiB and of `alignment`, a power
// of two. *zeroed (may be NULL) tells if all of it is known to be zero. NULL when the operating system or HAKMEM_LIMIT
// refuses, or the size is beyond all reason; errno is not touched. Cost: a lock when a freed mapping fits, else one to
// five system calls.
void *hak_huge_malloc(struct hak_huge_heap *heap, size_t size, size_t alignment, bool *zeroed);

// Takes back the block at `p`, whose registry entry has (or had) the kind HAK_KIND_HUGE, from any thread. A pointer
// that is not the start of a live block stops the program as hak_huge_misuse does. Cost: a lock; a system call when the
// mapping is not kept.
void hak_huge_free(struct hak_huge_heap *heap, void *p);

// The bytes of the block at `p` that may be used; 0 if `p`, whose registry entry has the kind HAK_KIND_HUGE, is not the
// start of a live block. Any thread that may use the block; no locks.
size_t hak_huge_usable_size(const void *p);

// Makes the block at `p` at least `size` bytes long (0 counts as 1) and returns its address: `p` itself if the mapping
// shrinks or can grow where it is, else, with `may_move`, a new address onto which the pages are moved without copying;
// the content stays up to the smaller of both sizes. A shorter block gives its tail back to the operating system, if
// that is more than an eighth of `size`, or than 2 MiB (hardened: in any case). The caller owns the block; different
// blocks may be resized at once. NULL when it is impossible, or HAKMEM_LIMIT refuses; the block stays as it was. Cost:
// system calls.
void *hak_huge_resize(struct hak_huge_heap *heap, void *p, size_t size, bool may_move);

// Unmaps the longest unused of the cached mappings if the process keeps more than its limit (superslab/retain.h), which
// sinks as the process grows, by half of that mapping at least, and it was unused for 20 ms. Does nothing when called
// again within that time. Any thread; called on slow paths. Cost: a few loads where the process keeps no more, else the
// clock, at times a lock, and a system call.
void hak_huge_return_excess(struct hak_huge_heap *heap);

// Whether `p` lies in a live block. Walks them all, under the lock.
bool hak_huge_owns(struct hak_huge_heap *heap, const void *p);

// What is wrong with `p`, if it is not the start of a live block but lies in a mapping of this heap: one of the reasons
// of platform/report.h (double free of a mapping that is still cached, or not the start of a block). NULL if the heap
// knows nothing of `p`. Walks all mappings: for pointers that the program is about to be stopped for.
const char *hak_huge_misuse_reason(struct hak_huge_heap *heap, const void *p);

// Says on stderr what is wrong with `p`, which `function` ("free", "realloc") was given, and aborts.
HAK_COLD HAK_NORETURN void hak_huge_misuse(struct hak_huge_heap *heap, const char *function, const void *p);

// Unmaps what was cached for longer than the pool's decay time. Called on slow paths. Cost: a lock.
void hak_huge_tick(struct hak_huge_heap *heap);

// Unmaps cached mappings, the longest unused first, until at most `keep_bytes` are left; with 0 also those that the
// kernel has refused to unmap. The number of bytes that were given back. Any thread. Cost: a lock, and a system call
// for each mapping.
size_t hak_huge_trim(struct hak_huge_heap *heap, size_t keep_bytes);

// Gives a mapping that the kernel has refused to unmap, and whose pages are gone, to the pool. False if there is none.
// What the program has set for its block with madvise stays set: for who would be refused otherwise. Any thread. Cost:
// a walk over those mappings, under the lock.
bool hak_huge_give_to_pool(struct hak_huge_heap *heap);

// For fork: the lock is taken before, and given back on both sides after.
void hak_huge_lock(struct hak_huge_heap *heap) HAK_ACQUIRES(heap->lock);
void hak_huge_unlock(struct hak_huge_heap *heap) HAK_RELEASES(heap->lock);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HUGE_HUGE_H_

// Mid: blocks of 1025 bytes to 32 KiB, in 40 size classes, eight to each doubling, each cut from runs of slabs.
//
// Where a class from 4 KiB on is a multiple of 1 KiB, its blocks would begin in few sets of the processor's caches.
// They have a colour, 64 or 128 bytes more (Bonwick, The Slab Allocator, USENIX 1994, gave one to each slab). For
// alignments there are kinds of the same sizes without (docs/decisions/0008-where-blocks-begin.md).
//
// Like Tiny, the tier keeps no state of its own; tiny/tiny.h shows how to use one alone.
#ifndef HAKMEM_MID_MID_H_
#define HAKMEM_MID_MID_H_

#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "heap/cache.h"
#include "heap/heap.h"
#include "platform/os.h"
#include "superslab/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_MID_SIZE_MIN ((size_t)1025)
#define HAK_MID_SIZE_MAX ((size_t)32768)
// All blocks are aligned to so many bytes at least.
#define HAK_MID_ALIGNMENT ((size_t)64)
// Blocks for at most so many bytes come from the shortest runs.
#define HAK_MID_SHORT_RUN_SIZE ((size_t)8192)

// Returns a block of at least `size` bytes, 0 to HAK_MID_SIZE_MAX; sizes below HAK_MID_SIZE_MIN are served from the
// smallest class, so that Mid can stand in for Tiny. The block is aligned to 64 bytes at least. NULL when memory has
// run out. Only the thread that owns the cache may call. Cost: about 20 instructions when the thread has a block of the
// class at hand.
void *hak_mid_malloc(struct hak_cache *cache, size_t size);

// A block of the size's class or of any larger one, not of those for alignments, out of the slabs that the heap has,
// for when hak_mid_malloc finds no run. NULL if there is none. Cost: a refill for each class.
void *hak_mid_malloc_any(struct hak_cache *cache, size_t size);

// As hak_mid_malloc, aligned to `alignment`, a power of two; NULL also if that or the size is beyond what any kind
// offers, which is 16 KiB of alignment.
void *hak_mid_malloc_aligned(struct hak_cache *cache, size_t size, size_t alignment);

// Frees a block of this tier, whichever thread it came from. Misuse stops the program.
void hak_mid_free(struct hak_cache *cache, void *p);

// By size, in steps of the smallest distance of two classes: the kind that serves it; and, where it is a multiple of an
// alignment above HAK_MID_ALIGNMENT, the kind that serves it so aligned.
#define HAK_MID_STEP ((size_t)128)
#define HAK_MID_SIZE_STEPS ((HAK_MID_SIZE_MAX - HAK_MID_SIZE_MIN + 1) / HAK_MID_STEP)
extern const uint8_t hak_mid_kinds[HAK_MID_SIZE_STEPS] HAK_HIDDEN;
extern const uint8_t hak_mid_kinds_aligned[HAK_MID_SIZE_STEPS] HAK_HIDDEN;

static inline size_t hak_mid_step(size_t size) { return (size - HAK_MID_SIZE_MIN) / HAK_MID_STEP; }

// The kind that serves `size`, HAK_MID_SIZE_MIN to HAK_MID_SIZE_MAX.
static inline size_t hak_mid_kind(size_t size) { return hak_mid_kinds[hak_mid_step(size)]; }

// By kind from HAK_KIND_MID_FIRST on: how long its blocks are.
extern const uint16_t hak_mid_blocks[HAK_MID_KINDS] HAK_HIDDEN;

// The bytes that may be used of a block of `kind`, HAK_KIND_MID_FIRST to HAK_KIND_MID_LAST.
static inline size_t hak_mid_block_bytes(size_t kind) { return hak_mid_blocks[kind - HAK_KIND_MID_FIRST]; }

// The kind that serves `size`, HAK_MID_SIZE_MAX at most, aligned to `alignment`, a power of two; above
// HAK_KIND_MID_LAST if there is none. Blocks of B bytes are aligned to the largest power of two that divides B, to half
// of it in runs that are not the shortest (heap/slab.h).
static inline size_t hak_mid_kind_aligned(size_t size, size_t alignment) {
  size = hak_max(size, HAK_MID_SIZE_MIN);
  size_t bytes = hak_round_up(size, alignment);
  bytes = hak_round_up(size, alignment << (bytes > HAK_MID_SHORT_RUN_SIZE));
  if (bytes > HAK_MID_SIZE_MAX) return HAK_KIND_MID_LAST + 1;
  const uint8_t *kinds = alignment <= HAK_MID_ALIGNMENT ? hak_mid_kinds : hak_mid_kinds_aligned;
  return kinds[hak_mid_step(bytes)];
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_MID_MID_H_

// Tiny's hot path, for the tier and the router.
#ifndef HAKMEM_TINY_TINY_INLINE_H_
#define HAKMEM_TINY_TINY_INLINE_H_

#include "base/bits.h"
#include "tiny/tiny.h"

#ifdef __cplusplus
extern "C" {
#endif

// The kind that serves `size`. Above HAK_TINY_SIZE_MAX it is larger than HAK_KIND_TINY_LAST; size 0, and sizes so
// large that the sum wraps, give 0, whose list is always empty.
static HAK_ALWAYS_INLINE size_t hak_tiny_kind(size_t size) { return (size + 15) / 16; }

// The kind that serves `size`, aligned to `alignment`, a power of two; above HAK_KIND_TINY_LAST if there
// is none. Their sum does not wrap. A block of B bytes is aligned to the largest power of two that divides B.
static HAK_ALWAYS_INLINE size_t hak_tiny_kind_aligned(size_t size, size_t alignment) {
  return hak_tiny_kind(hak_round_up(hak_max(size, 1), alignment));
}

// Fills the list of the kind that serves `size`, at most HAK_TINY_SIZE_MAX, and takes a block from it.
void *hak_tiny_malloc_slow(struct hak_cache *cache, size_t size);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_TINY_TINY_INLINE_H_

// Tiny's hot path, for the tier and the router.
#ifndef HAKMEM_TINY_TINY_INLINE_H_
#define HAKMEM_TINY_TINY_INLINE_H_

#include "tiny/tiny.h"

#ifdef __cplusplus
extern "C" {
#endif

// The kind that serves `size`. Above HAK_TINY_SIZE_MAX it is larger than HAK_KIND_TINY_LAST; size 0, and sizes so
// large that the sum wraps, give 0, whose list is always empty.
static HAK_ALWAYS_INLINE size_t hak_tiny_kind(size_t size) { return (size + 15) / 16; }

// Fills the list of the kind that serves `size`, at most HAK_TINY_SIZE_MAX, and takes a block from it.
void *hak_tiny_malloc_slow(struct hak_cache *cache, size_t size);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_TINY_TINY_INLINE_H_

// The hot paths of malloc and free, for the router and the library that replaces malloc.
#ifndef HAKMEM_ROUTER_ROUTER_INLINE_H_
#define HAKMEM_ROUTER_ROUTER_INLINE_H_

#include "base/poison.h"
#include "heap/cache.h"
#include "router/process.h"
#include "tiny/tiny_inline.h"

#ifdef __cplusplus
extern "C" {
#endif

// Where the thread's list of Tiny is empty, and for the sizes beyond Tiny.
HAK_HIDDEN void *hak_router_malloc_slow(size_t size);
HAK_HIDDEN void *hak_router_malloc_large(size_t size);
HAK_HIDDEN void hak_router_free_slow(void *p, size_t kind, uintptr_t distance, uint64_t index);

// Where poison is (base/poison.h), the block at `p`, fresh from its tier, becomes one of `size` bytes; and one to give
// back to its tier, if it is hakmem's.
HAK_HIDDEN void hak_router_mark_block(void *p, size_t size);
HAK_HIDDEN void hak_router_unmark_block(void *p);

// All blocks of the hardened library take the slow paths, where the checks are.

// Tiny's kind -> pop; NULL if the thread's list has no block, or another tier is to serve `size`.
static HAK_ALWAYS_INLINE void *hak_router_malloc_cached(size_t size) {
  if (HAK_CONFIG_HARDENED) return NULL;
  size_t kind = hak_tiny_kind(size);
  void *block = HAK_LIKELY(kind <= HAK_KIND_TINY_LAST) ? hak_cache_pop(&hak_thread_cache, kind) : NULL;
  if (HAK_POISON && block != NULL) hak_router_mark_block(block, size);
  return block;
}

// What that leaves.
static HAK_ALWAYS_INLINE void *hak_router_malloc_uncached(size_t size) {
  return hak_tiny_kind(size) > HAK_KIND_TINY_LAST ? hak_router_malloc_large(size) : hak_router_malloc_slow(size);
}

// hak_malloc: size -> kind -> pop.
static HAK_ALWAYS_INLINE void *hak_router_malloc(size_t size) {
  void *block = hak_router_malloc_cached(size);
  return HAK_LIKELY(block != NULL) ? block : hak_router_malloc_uncached(size);
}

// address -> kind -> push, if the block lies in the current slab of its kind, or may become a recent one. False, and
// what is known so far is in *miss, otherwise.
static HAK_ALWAYS_INLINE bool hak_router_free_cached(void *p, struct hak_cache_miss *miss) {
  if (HAK_POISON) hak_router_unmark_block(p);
  if (HAK_CONFIG_HARDENED) {
    *miss = (struct hak_cache_miss){HAK_KIND_NONE, 0, {NULL, 0}};
    return false;
  }
  return HAK_LIKELY(hak_cache_push(&hak_thread_cache, p, miss)) || hak_cache_push_recent(&hak_thread_cache, p, *miss);
}

// hak_free.
static HAK_ALWAYS_INLINE void hak_router_free(void *p) {
  struct hak_cache_miss miss;
  if (!hak_router_free_cached(p, &miss)) hak_router_free_slow(p, miss.kind, miss.distance, miss.place.index);
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_ROUTER_INLINE_H_

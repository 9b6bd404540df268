// Tiny: blocks of 0 to 1024 bytes, in 64 size classes 16 bytes apart, each cut from runs of 256 KiB.
//
// The tier keeps no state of its own: it works on a thread's cache, which gets its slabs from the heap that is attached
// to it. To use it alone:
//
//   static struct hak_pool pool;
//   static struct hak_heap_set heaps;
//   hak_pool_init(&pool, hak_os_linux());
//   hak_heap_set_init(&heaps, &pool, HAK_REFILL_COUNT_DEFAULT, false);
//
//   struct hak_cache cache = HAK_CACHE_INIT;      // one per thread
//   if (!hak_heap_attach(&heaps, &cache)) ...     // out of memory
//   void *p = hak_tiny_malloc(&cache, 100);
//   hak_tiny_free(&cache, p);                     // or by any other thread, with its own cache
//   hak_heap_detach(&cache);                      // at the thread's end; its live blocks stay valid
#ifndef HAKMEM_TINY_TINY_H_
#define HAKMEM_TINY_TINY_H_

#include <stddef.h>

#include "heap/cache.h"
#include "heap/heap.h"
#include "platform/os.h"
#include "superslab/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_TINY_SIZE_MAX ((size_t)1024)

// Returns a block of at least `size` bytes, 0 to HAK_TINY_SIZE_MAX, aligned to 16; 0 counts as 1. NULL when memory has
// run out (errno is the router's business). Only the thread that owns the cache may call. Cost: about a dozen
// instructions when the class's list has a block; else a refill, which takes a lock or maps memory only once it needs a
// new slab.
void *hak_tiny_malloc(struct hak_cache *cache, size_t size);

// A block of the size's class or of any larger one, out of the slabs that the heap has, for when hak_tiny_malloc finds
// no run. NULL if there is none. Cost: a refill for each class.
void *hak_tiny_malloc_any(struct hak_cache *cache, size_t size);

// As hak_tiny_malloc, aligned to `alignment`, a power of two from 16 to HAK_TINY_SIZE_MAX.
void *hak_tiny_malloc_aligned(struct hak_cache *cache, size_t size, size_t alignment);

// Frees a block of this tier, whichever thread it came from. Misuse stops the program.
void hak_tiny_free(struct hak_cache *cache, void *p);

// The bytes that may be used of a block of `kind`, HAK_KIND_TINY_FIRST to HAK_KIND_TINY_LAST.
static inline size_t hak_tiny_block_bytes(size_t kind) { return 16 * kind; }

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_TINY_TINY_H_

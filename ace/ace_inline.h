// The hot paths of ACE: a block out of, and into, the calling thread's cache. For the router and ace/ only.
#ifndef HAKMEM_ACE_ACE_INLINE_H_
#define HAKMEM_ACE_ACE_INLINE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ace/ace.h"
#include "ace/ace_class.h"
#include "base/atomic.h"
#include "base/compiler.h"
#include "base/poison.h"
#include "superslab/registry.h"

#ifdef __cplusplus
extern "C" {
#endif

// What is known of a page: a word in the sixteenth part of its slab's private descriptor, so that the words of all
// pages lie side by side. Extents and runs of free pages tile a SuperSlab; the word of the first page of each says what
// it is.
//
//    31       30    29    18 17             8 7       0
//   +--------+------+-------+----------------+---------+
//   | unused | free |   0   |     pages      |  class  |   live extent:   unused 0
//   +--------+------+-------+----------------+---------+   cached extent: unused 1, free 0; in some thread's cache
//                                                          free run:      unused 1, free 1; last page: the same
//   All other words are 0. class: hak_ace_class_of_extent(pages); of a free run 0.
//
// The word of a live extent is also its weight in a cache: 256 to a page, and for the class less than a page.
//
// A word belongs to who holds the pages: the holder of the arena's lock while they are free, then the program, then
// (cached) the thread whose cache they are in; pages and class change under the lock only. It is atomic, relaxed, since
// the lock's holder walks over the extents of others, and a pointer that is freed by mistake leads any thread to any
// word.
#define HAK_ACE_UNUSED ((uint32_t)1 << 31)
#define HAK_ACE_FREE ((uint32_t)1 << 30)
#define HAK_ACE_EXTENT_PAGES_SHIFT 8
#define HAK_ACE_EXTENT_CLASS (((uint32_t)1 << HAK_ACE_EXTENT_PAGES_SHIFT) - 1)

static inline uint32_t hak_ace_extent_make(size_t n_pages) {
  return (uint32_t)(n_pages << HAK_ACE_EXTENT_PAGES_SHIFT | hak_ace_class_of_extent(n_pages));
}

static HAK_ALWAYS_INLINE size_t hak_ace_extent_pages(uint32_t extent) {
  return (extent & ~(HAK_ACE_UNUSED | HAK_ACE_FREE)) >> HAK_ACE_EXTENT_PAGES_SHIFT;
}

// The word of the page at `p`, which lies in a SuperSlab of ACE. The look-up is hak_registry_kind's, and as much to the
// instruction: the words begin at a fixed distance from the region's start.
static HAK_ALWAYS_INLINE uint32_t *hak_ace_extent_of(const void *p) {
  const struct hak_registry *registry = &hak_registry;
  HAK_HIDE(registry);
  uint64_t page = (uint32_t)(uintptr_t)p >> HAK_ACE_PAGE_SHIFT;
  uint64_t offset = registry->region_offset[(uintptr_t)p >> HAK_REGION_SHIFT];
  return (uint32_t *)((uintptr_t)registry + (offset + page) * sizeof(uint32_t) +
                      offsetof(struct hak_region, slab_private));
}

static HAK_ALWAYS_INLINE bool hak_ace_extent_is_live(uint32_t extent) { return (int32_t)extent > 0; }

// Whether `p` is the address of a page.
static HAK_ALWAYS_INLINE bool hak_ace_is_page(const void *p) {
  return ((uintptr_t)p & ~(HAK_ADDRESS_MASK - (HAK_ACE_PAGE_BYTES - 1))) == 0;
}

static inline size_t hak_ace_cache_count(const struct hak_ace_cache *cache, size_t size_class) {
  return cache->stacks == NULL ? 0 : (size_t)(cache->top[size_class] - cache->stacks->slots[size_class]);
}

// Takes an extent of `size_class` or a few classes more; NULL if there is none that is a multiple of `alignment`.
static HAK_ALWAYS_INLINE void *hak_ace_cache_pop_class(struct hak_ace_cache *cache,
                                                       const struct hak_ace_class_tables *tables, size_t size_class,
                                                       size_t alignment) {
  uint64_t candidates = cache->nonempty & tables->window[size_class];
  if (HAK_UNLIKELY(candidates == 0)) return NULL;
  size_class = (size_t)__builtin_ctzl(candidates);
  struct hak_ace_cached *top = cache->top[size_class] - 1;
  void *p = top->extent;
  if (p == NULL) __builtin_unreachable();
  if (HAK_UNLIKELY(((uintptr_t)p & (alignment - 1)) != 0)) return NULL;
  uint32_t *word = top->word;
  HAK_COMPILER_BARRIER();  // a fork may catch this thread anywhere, and the child gives back what the cache holds
  cache->top[size_class] = top;
  if (HAK_UNLIKELY(((uintptr_t)top & (HAK_ACE_STACK_BYTES - 1)) == 0)) {
    uint64_t bit = (uint64_t)1 << size_class;
    cache->nonempty ^= bit;  // it was set
    cache->emptied |= bit;
  }
  uint32_t extent = hak_load_relaxed(word) & ~HAK_ACE_UNUSED;
  HAK_HIDE(extent);  // one value for both uses
  hak_store_relaxed(word, extent);
  cache->room += extent;
  hak_unpoison(p, hak_ace_extent_pages(extent) << HAK_ACE_PAGE_SHIFT);
  return p;
}

// A block of at least `size` bytes out of the cache, aligned to 4 KiB; NULL if it has none or `size` is not of ACE's
// range, or the largest of it, which the router gives to Huge: then hak_ace_malloc or another tier is asked. The
// calling thread's cache, which may be all zero.
static HAK_ALWAYS_INLINE void *hak_ace_cache_pop(struct hak_ace_cache *cache, size_t size) {
  size_t smallest = (HAK_ACE_MIN_PAGES - 1) * HAK_ACE_PAGE_BYTES + 1;
  size_t excess = size - smallest;
  if (HAK_UNLIKELY(excess >= HAK_ACE_MAX_BYTES - smallest)) return NULL;
  const struct hak_ace_class_tables *tables = &hak_ace_class_tables;
  HAK_HIDE(tables);
  return hak_ace_cache_pop_class(cache, tables, tables->of_pages[excess >> HAK_ACE_PAGE_SHIFT], 1);
}

// Puts the block at `p` into the cache. False, and nothing has changed, if the cache has no room or `p`, whose registry
// entry has the kind HAK_KIND_ACE, is not the start of a live block: then hak_ace_free sees to it.
static HAK_ALWAYS_INLINE bool hak_ace_cache_push(struct hak_ace_cache *cache, void *p) {
  if (HAK_UNLIKELY(!hak_ace_is_page(p))) return false;
  uint32_t *word = hak_ace_extent_of(p);
  uint32_t extent = hak_load_relaxed(word);
  if (HAK_UNLIKELY(extent - 1 >= cache->room)) return false;  // no room; or not live, and so larger than any room
  size_t size_class = extent & HAK_ACE_EXTENT_CLASS;
  HAK_HIDE(size_class);  // one value for all uses
  struct hak_ace_cached *top = cache->top[size_class];
  if (HAK_UNLIKELY(top >= cache->end[size_class])) return false;
  hak_store_relaxed(word, extent + HAK_ACE_UNUSED);
  hak_poison(p, hak_ace_extent_pages(extent) << HAK_ACE_PAGE_SHIFT);
  cache->room -= extent;
  uint64_t nonempty = cache->nonempty;
  HAK_HIDE(nonempty);  // in a register, where one instruction sets a bit
  cache->nonempty = nonempty | (uint64_t)1 << size_class;
  *top = (struct hak_ace_cached){.extent = p, .word = word};
  HAK_COMPILER_BARRIER();  // as in pop
  ++cache->top[size_class];
  return true;
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ACE_ACE_INLINE_H_

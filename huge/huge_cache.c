// Freed mappings: those that are cached for the next request, and those that the kernel would not unmap.
#include "base/atomic.h"
#include "base/poison.h"
#include "huge/huge_internal.h"
#include "superslab/registry.h"
#include "superslab/retain.h"

// Cached mappings

static void unlink_cached_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) HAK_REQUIRES(heap->lock) {
  if (mapping->next != NULL) {
    mapping->next->prev = mapping->prev;
  } else {
    heap->cached_last = mapping->prev;
  }
  if (mapping->prev != NULL) {
    mapping->prev->next = mapping->next;
  } else {
    heap->cached_first = mapping->next;
  }
  --heap->n_cached;
  hak_sub_relaxed(&heap->cached_bytes, hak_huge_bytes(mapping));
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, (size_t)0 - hak_huge_bytes(mapping));
}

// Takes the mapping out of the cache, and puts it first in *list.
static void take_cached_locked(struct hak_huge_heap *heap, struct hak_huge *mapping, struct hak_huge **list)
    HAK_REQUIRES(heap->lock) {
  unlink_cached_locked(heap, mapping);
  mapping->next = *list;
  *list = mapping;
}

void hak_huge_cache_add_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) {
  hak_poison((void *)mapping->base, hak_huge_bytes(mapping));
  struct hak_huge *next;
  for (struct hak_huge *other = heap->cached_first; other != NULL; other = next) {
    next = other->next;
    if (other->origin != mapping->origin) continue;
    struct hak_huge *lower = other->base < mapping->base ? other : mapping;
    struct hak_huge *upper = lower == other ? mapping : other;
    if (lower->base + hak_huge_bytes(lower) != upper->base) continue;
    unlink_cached_locked(heap, other);
    // As old as most of it: a small piece that is used again and again does not keep the rest.
    lower->freed_ms = (hak_huge_bytes(lower) > hak_huge_bytes(upper) ? lower : upper)->freed_ms;
    hak_store_relaxed(&lower->bytes, hak_huge_bytes(lower) + hak_huge_bytes(upper));
    lower->clean = lower->clean && upper->clean;
    hak_registry_uncover(heap->os, upper->base);
    mapping = lower;
  }
  mapping->next = NULL;
  mapping->prev = heap->cached_last;
  if (mapping->prev != NULL) {
    mapping->prev->next = mapping;
  } else {
    heap->cached_first = mapping;
  }
  heap->cached_last = mapping;
  ++heap->n_cached;
  hak_add_relaxed(&heap->cached_bytes, hak_huge_bytes(mapping));
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, hak_huge_bytes(mapping));
}

struct hak_huge *hak_huge_cache_evict_locked(struct hak_huge_heap *heap, size_t limit_bytes, size_t limit_mappings) {
  struct hak_huge *evicted = NULL;
  struct hak_huge *next;
  for (struct hak_huge *mapping = heap->cached_first; mapping != NULL; mapping = next) {
    if (heap->cached_bytes <= limit_bytes && heap->n_cached <= limit_mappings) break;
    next = mapping->next;
    take_cached_locked(heap, mapping, &evicted);
  }
  return evicted;
}

struct hak_huge *hak_huge_cache_evict_expired_locked(struct hak_huge_heap *heap, uint64_t now) {
  struct hak_huge *expired = NULL;
  struct hak_huge *next;
  for (struct hak_huge *mapping = heap->cached_first; mapping != NULL; mapping = next) {
    next = mapping->next;
    if (mapping->freed_ms > now || now - mapping->freed_ms < hak_retain_delay_ms(&heap->pool->retain)) continue;
    take_cached_locked(heap, mapping, &expired);
  }
  return expired;
}

struct hak_huge *hak_huge_cache_evict_excess_locked(struct hak_huge_heap *heap) {
  struct hak_huge *evicted = NULL;
  struct hak_huge *next;
  for (struct hak_huge *mapping = heap->cached_first; mapping != NULL; mapping = next) {
    next = mapping->next;
    if (mapping->clean) continue;
    if (hak_retain_excess(&heap->pool->retain) == 0) break;
    take_cached_locked(heap, mapping, &evicted);
  }
  return evicted;
}

// The part of a mapping that must be too much: a whole one for a little would be missed.
#define EXCESS_DIVISOR 2

struct hak_huge *hak_huge_cache_take_excess_locked(struct hak_huge_heap *heap, size_t excess_bytes, uint64_t now) {
  struct hak_huge *mapping = heap->cached_first;
  while (mapping != NULL && mapping->clean) mapping = mapping->next;
  if (mapping == NULL || excess_bytes < hak_huge_bytes(mapping) / EXCESS_DIVISOR) return NULL;
  if (now < mapping->freed_ms + HAK_HUGE_EXCESS_GRACE_MS) return NULL;
  unlink_cached_locked(heap, mapping);
  mapping->next = NULL;
  return mapping;
}

// Refused mappings

void hak_huge_refused_add_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) {
  hak_poison((void *)mapping->base, hak_huge_bytes(mapping));
  mapping->next = heap->refused;
  heap->refused = mapping;
  heap->refused_bytes += hak_huge_bytes(mapping);
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, hak_huge_bytes(mapping));
}

// Takes the mapping that *link points to.
static struct hak_huge *take_refused_locked(struct hak_huge_heap *heap, struct hak_huge **link)
    HAK_REQUIRES(heap->lock) {
  struct hak_huge *mapping = *link;
  *link = mapping->next;
  heap->refused_bytes -= hak_huge_bytes(mapping);
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, (size_t)0 - hak_huge_bytes(mapping));
  return mapping;
}

struct hak_huge *hak_huge_refused_take_locked(struct hak_huge_heap *heap, size_t n) {
  struct hak_huge *list = NULL;
  for (size_t i = 0; i < n && heap->refused != NULL; ++i) {
    struct hak_huge *mapping = take_refused_locked(heap, &heap->refused);
    mapping->next = list;
    list = mapping;
  }
  return list;
}

struct hak_huge *hak_huge_refused_take_superslabs_locked(struct hak_huge_heap *heap) {
  for (struct hak_huge **link = &heap->refused; *link != NULL; link = &(*link)->next) {
    bool serves = (*link)->clean && (*link)->guard_bytes == 0 && hak_huge_bytes(*link) % HAK_SUPERSLAB_BYTES == 0;
    if (serves) return take_refused_locked(heap, link);
  }
  return NULL;
}

// The mapping for a request

// The smallest that is large enough suits best, else the largest.
static bool suits_better(size_t bytes, size_t best_bytes, size_t wanted_bytes) {
  if (bytes < wanted_bytes) return bytes > best_bytes;
  return best_bytes < wanted_bytes || bytes < best_bytes;
}

// The cached mapping that suits best for `bytes`; NULL when none is aligned as wanted.
static struct hak_huge *find_cached_locked(struct hak_huge_heap *heap, size_t bytes, size_t alignment)
    HAK_REQUIRES(heap->lock) {
  struct hak_huge *best = NULL;
  for (struct hak_huge *mapping = heap->cached_first; mapping != NULL; mapping = mapping->next) {
    if ((mapping->base & (alignment - 1)) != 0) continue;
    if (best == NULL || suits_better(hak_huge_bytes(mapping), hak_huge_bytes(best), bytes)) best = mapping;
  }
  return best;
}

// Where a mapping of `bytes` or more that the kernel would not unmap is linked; NULL when none is aligned as wanted.
static struct hak_huge **find_refused_locked(struct hak_huge_heap *heap, size_t bytes, size_t alignment)
    HAK_REQUIRES(heap->lock) {
  for (struct hak_huge **link = &heap->refused; *link != NULL; link = &(*link)->next) {
    if (((*link)->base & (alignment - 1)) == 0 && hak_huge_bytes(*link) >= bytes) return link;
  }
  return NULL;
}

struct hak_huge *hak_huge_cache_take_best_locked(struct hak_huge_heap *heap, size_t bytes, size_t alignment,
                                                 bool want_zeroed) {
  struct hak_huge *mapping = find_cached_locked(heap, bytes, alignment);
  if (mapping != NULL && want_zeroed && !mapping->clean && hak_huge_bytes(mapping) < bytes) mapping = NULL;
  if (mapping == NULL || hak_huge_bytes(mapping) < bytes) {
    struct hak_huge **link = find_refused_locked(heap, bytes, alignment);
    if (link != NULL) return take_refused_locked(heap, link);
  }
  if (mapping != NULL) unlink_cached_locked(heap, mapping);
  return mapping;
}

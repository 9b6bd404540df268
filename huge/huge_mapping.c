// One mapping: how it is made, adjusted to a request, grown, moved, made shorter and unmapped.
#include "base/atomic.h"
#include "base/bits.h"
#include "huge/huge_internal.h"
#include "platform/os.h"
#include "superslab/limit.h"
#include "superslab/pool.h"
#include "superslab/registry.h"
#include "superslab/retain.h"

// What a block may hold beyond the request: a third of it where a cached mapping serves it, since pages that went back
// would be faulted in again when the mapping serves the next one; an eighth where it was made smaller, or in the
// hardened library nothing.
#define SLACK_OF_REUSED 3
#define SLACK_OF_SHRUNK (HAK_CONFIG_HARDENED ? SIZE_MAX : 8)

// Where it would be more, the pages at the end are kept all the same while those of all blocks together are no more
// than this part of the least that the process keeps: in turn with longer blocks they would be faulted in again each
// time.
#define RESTS_DIVISOR 2

static struct hak_limit *limit_of(struct hak_huge_heap *heap) { return &heap->pool->retain.limit; }

// Tells the pool that memory without pages is about to be used. What is used of a Huge block nobody knows.
static void took_fresh(struct hak_huge_heap *heap, size_t bytes) {
  hak_retain_took_pages(&heap->pool->retain, 0, bytes);
}

// In the hardened library the last page of each mapping is guarded, a block that becomes smaller leaves a larger guard,
// and a freed block is a guard as a whole: it is cached without being used again, so that for a while nobody gets its
// addresses.

static size_t guard_page_bytes(const struct hak_huge_heap *heap) {
  return HAK_CONFIG_HARDENED ? heap->os->page_bytes : 0;
}

// Makes all of the mapping from `bytes` on a guard. False, and nothing has changed, when the kernel refuses.
static bool guard_from(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t guarded_bytes = hak_huge_bytes(mapping) - bytes;
  if (!heap->os->guard((void *)(mapping->base + bytes), guarded_bytes)) return false;
  mapping->guard_bytes += guarded_bytes;
  hak_store_relaxed(&mapping->bytes, bytes);
  hak_limit_give_back(limit_of(heap), guarded_bytes);
  return true;
}

// Making and unmapping

// The region of `base` is covered.
static struct hak_huge *describe(uintptr_t base, size_t bytes, uint64_t origin) {
  struct hak_huge *mapping = hak_huge_descriptor((const void *)base);
  *mapping = (struct hak_huge){.base = base, .origin = origin};
  hak_store_relaxed(&mapping->bytes, bytes);
  return mapping;
}

// What map_new does once its bytes are counted.
static struct hak_huge *map_counted(struct hak_huge_heap *heap, size_t usable_bytes, size_t alignment) {
  size_t bytes = usable_bytes + guard_page_bytes(heap);
  // Below the last one, where the kernel's own top-down search would go as well.
  uintptr_t last = hak_load_relaxed(&heap->last_mapped);
  uintptr_t hint = last > bytes ? hak_round_down(last - bytes, alignment) : 0;
  void *p = hak_os_map_aligned(heap->os, (void *)hint, bytes, alignment);
  if (p == NULL) return NULL;
  if (!hak_registry_cover(heap->os, (uintptr_t)p)) {
    (void)heap->os->unmap(p, bytes);
    return NULL;
  }
  hak_store_relaxed(&heap->last_mapped, (uintptr_t)p);
  enum hak_thp thp = (enum hak_thp)hak_load_relaxed(&heap->pool->thp);
  if (thp != HAK_THP_AUTO) heap->os->huge_pages(p, bytes, thp == HAK_THP_ALWAYS);
  struct hak_huge *mapping = describe((uintptr_t)p, bytes, hak_add_relaxed(&heap->n_origins, 1));
  if (HAK_CONFIG_HARDENED) (void)guard_from(heap, mapping, usable_bytes);
  return mapping;
}

// What hak_huge_mapping_make does, for `held_bytes` more of the limit.
static struct hak_huge *map_new(struct hak_huge_heap *heap, size_t usable_bytes, size_t alignment, size_t held_bytes) {
  if (!hak_limit_take(limit_of(heap), held_bytes)) return NULL;
  struct hak_huge *mapping = map_counted(heap, usable_bytes, alignment);
  if (mapping == NULL) hak_limit_give_back(limit_of(heap), held_bytes);
  return mapping;
}

struct hak_huge *hak_huge_mapping_make(struct hak_huge_heap *heap, size_t bytes, size_t alignment) {
  struct hak_huge *mapping = map_new(heap, bytes, alignment, bytes + guard_page_bytes(heap));
  if (mapping != NULL) took_fresh(heap, bytes);
  return mapping;
}

size_t hak_huge_mappings_unmap(struct hak_huge_heap *heap, struct hak_huge *list) {
  size_t returned = 0;
  struct hak_huge *next;
  for (struct hak_huge *mapping = list; mapping != NULL; mapping = next) {
    next = mapping->next;
    size_t bytes = hak_huge_bytes(mapping);
    uintptr_t base = mapping->base;
    uintptr_t end = base + bytes + mapping->guard_bytes;
    if (heap->os->unmap((void *)base, end - base)) {
      hak_registry_uncover(heap->os, base);
      // The next mapping goes here again, and not ever further down: each place costs descriptors.
      if (hak_load_relaxed(&heap->last_mapped) < end) hak_store_relaxed(&heap->last_mapped, end);
      hak_limit_give_back(limit_of(heap), bytes);
      returned += bytes;
      continue;
    }
    if (!mapping->clean && heap->os->purge((void *)base, bytes)) {
      mapping->clean = true;
      returned += bytes;
    }
    hak_huge_lock(heap);
    hak_huge_refused_add_locked(heap, mapping);
    hak_huge_unlock(heap);
  }
  return returned;
}

// Remapping

bool hak_huge_mapping_grow(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t more_bytes = bytes - hak_huge_bytes(mapping);
  if (!hak_limit_take(limit_of(heap), more_bytes)) return false;
  if (heap->os->remap((void *)mapping->base, hak_huge_bytes(mapping), bytes, NULL) == NULL) {
    hak_limit_give_back(limit_of(heap), more_bytes);
    return false;
  }
  took_fresh(heap, more_bytes);
  hak_store_relaxed(&mapping->bytes, bytes);
  return true;
}

struct hak_huge *hak_huge_mapping_move(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t more_bytes = bytes + guard_page_bytes(heap) - hak_huge_bytes(mapping);
  struct hak_huge *target = map_new(heap, bytes, HAK_HUGE_ALIGNMENT, more_bytes);
  if (target == NULL) return NULL;
  target->clean = mapping->clean;
  took_fresh(heap, bytes - hak_huge_bytes(mapping));
  // Afterwards the old range, and so the old descriptor, may be another thread's; but for the guard.
  const struct hak_huge old = *mapping;
  if (heap->os->remap((void *)old.base, old.bytes, bytes, (void *)target->base) != NULL) {
    if (HAK_CONFIG_HARDENED && old.guard_bytes != 0)
      (void)heap->os->unmap((void *)(old.base + old.bytes), old.guard_bytes);
    hak_registry_uncover(heap->os, old.base);
    return target;
  }
  hak_limit_add(limit_of(heap), old.bytes);  // both are held, until one goes back
  target->next = NULL;
  (void)hak_huge_mappings_unmap(heap, target);
  return NULL;
}

// Fitting

// Whether a mapping of `bytes` is close enough to the request, by one of the divisors above and by 2 MiB at most, so
// that nothing is cut off.
static bool fits(size_t bytes, size_t wanted_bytes, size_t slack) {
  return bytes - wanted_bytes <= hak_min(wanted_bytes / slack, HAK_HUGE_ALIGNMENT);
}

// Gives the end of `mapping` back to the operating system, from `bytes` on.
static void cut(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t cut_bytes = hak_huge_bytes(mapping) - bytes;
  if (!heap->os->unmap((void *)(mapping->base + bytes), cut_bytes)) return;
  hak_store_relaxed(&mapping->bytes, bytes);
  hak_limit_give_back(limit_of(heap), cut_bytes);
}

// Makes what `mapping` has beyond `bytes` a cached mapping of its own, as far as it can start one. `mapping` is in the
// caller's hands.
static void split(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t old_bytes = hak_huge_bytes(mapping);
  size_t head_bytes = hak_round_up(bytes, HAK_HUGE_ALIGNMENT);
  if (head_bytes >= old_bytes || !hak_registry_cover(heap->os, mapping->base + head_bytes)) return;
  struct hak_huge *tail = describe(mapping->base + head_bytes, old_bytes - head_bytes, mapping->origin);
  tail->clean = mapping->clean;
  tail->freed_ms = mapping->freed_ms;
  hak_store_relaxed(&mapping->bytes, head_bytes);
  hak_huge_lock(heap);
  hak_huge_cache_add_locked(heap, tail);
  hak_huge_unlock(heap);
}

void hak_huge_mapping_shrink(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  if (fits(hak_huge_bytes(mapping), bytes, SLACK_OF_SHRUNK)) return;
  if (HAK_CONFIG_HARDENED) {
    (void)guard_from(heap, mapping, bytes);
  } else {
    cut(heap, mapping, bytes);
  }
}

// Whether the last `rest_bytes` of the mapping, which is in the caller's hands, keep their pages while it is in use.
static bool keeps_rest(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t rest_bytes) {
  size_t most_bytes = hak_load_relaxed(&heap->pool->retain.min_bytes) / RESTS_DIVISOR;
  if (hak_load_relaxed(&heap->rest_bytes) + rest_bytes > most_bytes) return false;
  hak_add_relaxed(&heap->rest_bytes, rest_bytes);
  mapping->rest_bytes = (uint32_t)rest_bytes;
  return true;
}

struct hak_huge *hak_huge_mapping_adjust(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes,
                                         size_t alignment) {
  if (hak_huge_bytes(mapping) < bytes) {
    // The pages it has need not be faulted in again; only the others are.
    if (hak_huge_mapping_grow(heap, mapping, bytes)) return mapping;
    struct hak_huge *grown = alignment > HAK_HUGE_ALIGNMENT ? NULL : hak_huge_mapping_move(heap, mapping, bytes);
    if (grown != NULL) return grown;
    hak_huge_lock(heap);
    hak_huge_cache_add_locked(heap, mapping);
    hak_huge_unlock(heap);
    return NULL;
  }
  if (fits(hak_huge_bytes(mapping), bytes, SLACK_OF_REUSED)) return mapping;
  split(heap, mapping, bytes);
  if (fits(hak_huge_bytes(mapping), bytes, SLACK_OF_REUSED)) return mapping;
  // Under a limit every byte that is mapped is held; else the rest stays mapped, so that the parts can become one
  // again.
  if (hak_load_relaxed(&limit_of(heap)->max_bytes) != HAK_LIMIT_NONE) cut(heap, mapping, bytes);
  size_t rest_bytes = hak_huge_bytes(mapping) - bytes;
  if (rest_bytes == 0 || mapping->clean || keeps_rest(heap, mapping, rest_bytes)) return mapping;
  (void)heap->os->purge((void *)(mapping->base + bytes), rest_bytes);
  return mapping;
}

void hak_huge_mapping_zero(struct hak_huge_heap *heap, struct hak_huge *mapping) {
  if (mapping->clean || !heap->os->purge((void *)mapping->base, hak_huge_bytes(mapping))) return;
  mapping->clean = true;
  took_fresh(heap, hak_huge_bytes(mapping));
}

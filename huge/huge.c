#include "huge/huge.h"

#include "base/atomic.h"
#include "base/bits.h"
#include "base/poison.h"
#include "huge/huge_internal.h"
#include "platform/lock.h"
#include "platform/os.h"
#include "platform/report.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

#define MIB ((size_t)1024 * 1024)

#define MAX_CACHED 32

#define REFUSED_PER_TRY 16

// For requests of zeroed memory up to this size it pays to clear a cached mapping; larger ones are often touched
// sparsely.
#define MAX_CLEARED_BYTES (32 * MIB)

void hak_huge_init(struct hak_huge_heap *heap, struct hak_pool *pool, bool diet) {
  *heap = (struct hak_huge_heap){.pool = pool, .os = pool->os, .diet = diet};
  hak_mutex_init(&heap->lock);
}

void hak_huge_destroy(struct hak_huge_heap *heap) {
  (void)hak_huge_trim(heap, 0);
  hak_mutex_destroy(&heap->lock);
}

void hak_huge_lock(struct hak_huge_heap *heap) { hak_lock(&heap->lock); }
void hak_huge_unlock(struct hak_huge_heap *heap) { hak_unlock(&heap->lock); }

// Live blocks

static bool is_start(const void *p) { return ((uintptr_t)p & (HAK_HUGE_ALIGNMENT - 1)) == 0; }

static void change_live_bytes(struct hak_huge_heap *heap, size_t old_bytes, size_t new_bytes) {
  hak_add_relaxed(&heap->live_bytes, new_bytes - old_bytes);
  hak_retain_add_huge(&heap->pool->retain, new_bytes - old_bytes);
}

static void link_live_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) HAK_REQUIRES(heap->lock) {
  mapping->prev = NULL;
  mapping->next = heap->live;
  if (mapping->next != NULL) mapping->next->prev = mapping;
  heap->live = mapping;
  hak_registry_set(mapping->base, 1, hak_entry_make(0, HAK_KIND_HUGE));
  hak_add_relaxed(&heap->n_live, 1);
  change_live_bytes(heap, 0, hak_huge_bytes(mapping));
}

static void unlink_live_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) HAK_REQUIRES(heap->lock) {
  hak_registry_set(mapping->base, 1, 0);
  if (mapping->next != NULL) mapping->next->prev = mapping->prev;
  if (mapping->prev != NULL) {
    mapping->prev->next = mapping->next;
  } else {
    heap->live = mapping->next;
  }
  hak_sub_relaxed(&heap->rest_bytes, mapping->rest_bytes);
  mapping->rest_bytes = 0;
  hak_sub_relaxed(&heap->n_live, 1);
  change_live_bytes(heap, hak_huge_bytes(mapping), 0);
}

// Makes the mapping, which is in the caller's hands, a live block.
static void *make_live(struct hak_huge_heap *heap, struct hak_huge *mapping) {
  hak_huge_lock(heap);
  link_live_locked(heap, mapping);
  hak_huge_unlock(heap);
  return (void *)mapping->base;
}

// What leaves the cache

static void unmap_expired(struct hak_huge_heap *heap, struct hak_huge *expired) {
  if (expired != NULL) hak_retain_gave_back_late(&heap->pool->retain, hak_huge_mappings_unmap(heap, expired));
}

static void unmap_excess(struct hak_huge_heap *heap, struct hak_huge *excess) {
  if (excess != NULL) hak_retain_gave_back_early(&heap->pool->retain, hak_huge_mappings_unmap(heap, excess));
}

// Malloc

// Takes a mapping for the request out of what is kept; NULL if there is none.
static struct hak_huge *take_cached(struct hak_huge_heap *heap, size_t bytes, size_t alignment, bool want_zeroed) {
  uint64_t now = heap->os->now_ms();
  hak_huge_lock(heap);
  struct hak_huge *mapping =
      HAK_CONFIG_HARDENED ? NULL : hak_huge_cache_take_best_locked(heap, bytes, alignment, want_zeroed);
  if (mapping != NULL) hak_unpoison((void *)mapping->base, hak_huge_bytes(mapping));
  struct hak_huge *expired = hak_huge_cache_evict_expired_locked(heap, now);
  hak_huge_unlock(heap);
  unmap_expired(heap, expired);
  return mapping;
}

void *hak_huge_malloc(struct hak_huge_heap *heap, size_t size, size_t alignment, bool *zeroed) {
  if (size > PTRDIFF_MAX) return NULL;
  size_t bytes = hak_round_up(hak_max(size, 1), heap->os->page_bytes);
  alignment = hak_max(alignment, HAK_HUGE_ALIGNMENT);

  struct hak_huge *mapping = take_cached(heap, bytes, alignment, zeroed != NULL);
  if (mapping != NULL) mapping = hak_huge_mapping_adjust(heap, mapping, bytes, alignment);
  if (mapping != NULL && zeroed != NULL && bytes > MAX_CLEARED_BYTES) hak_huge_mapping_zero(heap, mapping);
  bool clean = mapping == NULL || mapping->clean;
  if (mapping == NULL) {
    mapping = hak_huge_mapping_make(heap, bytes, alignment);
    if (mapping == NULL && hak_huge_trim(heap, 0) != 0) mapping = hak_huge_mapping_make(heap, bytes, alignment);
    if (mapping == NULL) return NULL;
  }
  if (zeroed != NULL) *zeroed = clean;
  return make_live(heap, mapping);
}

// Free

void hak_huge_free(struct hak_huge_heap *heap, void *p) {
  uint64_t now = heap->os->now_ms();
  hak_huge_lock(heap);
  // Under the lock, so that of two threads that free the same block one is told.
  if (!is_start(p) || hak_entry_kind(hak_registry_find(p)) != HAK_KIND_HUGE) {
    hak_huge_unlock(heap);
    hak_huge_misuse(heap, "free", p);
  }
  struct hak_huge *mapping = hak_huge_descriptor(p);
  unlink_live_locked(heap, mapping);
  mapping->clean = HAK_CONFIG_HARDENED && heap->os->guard((void *)mapping->base, hak_huge_bytes(mapping));
  mapping->freed_ms = now;
  hak_huge_cache_add_locked(heap, mapping);
  struct hak_huge *surplus = hak_huge_cache_evict_locked(heap, heap->diet ? 0 : SIZE_MAX, MAX_CACHED);
  struct hak_huge *excess = hak_huge_cache_evict_excess_locked(heap);
  struct hak_huge *expired = hak_huge_cache_evict_expired_locked(heap, now);
  hak_huge_unlock(heap);
  (void)hak_huge_mappings_unmap(heap, surplus);
  unmap_excess(heap, excess);
  unmap_expired(heap, expired);
}

// Misuse

bool hak_huge_owns(struct hak_huge_heap *heap, const void *p) {
  hak_huge_lock(heap);
  const struct hak_huge *mapping = heap->live;
  while (mapping != NULL && (uintptr_t)p - mapping->base >= hak_huge_bytes(mapping)) mapping = mapping->next;
  hak_huge_unlock(heap);
  return mapping != NULL;
}

const char *hak_huge_misuse_reason(struct hak_huge_heap *heap, const void *p) {
  const char *reason = NULL;
  uintptr_t address = (uintptr_t)p;
  hak_huge_lock(heap);
  for (const struct hak_huge *mapping = heap->live; mapping != NULL; mapping = mapping->next) {
    if (address - mapping->base < hak_huge_bytes(mapping) && address != mapping->base) reason = HAK_MISUSE_NOT_START;
  }
  const struct hak_huge *freed[] = {heap->cached_first, heap->refused};
  for (size_t i = 0; i < sizeof freed / sizeof freed[0]; ++i) {
    for (const struct hak_huge *mapping = freed[i]; mapping != NULL; mapping = mapping->next) {
      if (address - mapping->base >= hak_huge_bytes(mapping)) continue;
      reason = is_start(p) ? HAK_MISUSE_DOUBLE_FREE : HAK_MISUSE_NOT_START;
    }
  }
  hak_huge_unlock(heap);
  return reason;
}

void hak_huge_misuse(struct hak_huge_heap *heap, const char *function, const void *p) {
  const char *reason = hak_huge_misuse_reason(heap, p);
  hak_fatal_misuse(function, p, reason != NULL ? reason : HAK_MISUSE_FOREIGN);
}

// Resize

size_t hak_huge_usable_size(const void *p) { return is_start(p) ? hak_huge_bytes(hak_huge_descriptor(p)) : 0; }

void *hak_huge_resize(struct hak_huge_heap *heap, void *p, size_t size, bool may_move) {
  if (size > PTRDIFF_MAX) return NULL;
  struct hak_huge *mapping = hak_huge_descriptor(p);
  size_t bytes = hak_round_up(hak_max(size, 1), heap->os->page_bytes);
  size_t old_bytes = hak_huge_bytes(mapping);
  if (bytes <= old_bytes) {
    hak_huge_mapping_shrink(heap, mapping, bytes);
    change_live_bytes(heap, old_bytes, hak_huge_bytes(mapping));
    return p;
  }
  if (hak_huge_mapping_grow(heap, mapping, bytes)) {
    change_live_bytes(heap, old_bytes, bytes);
    return p;
  }
  if (!may_move) return NULL;

  // Off the list before it moves: the old range is anybody's from then on.
  hak_huge_lock(heap);
  unlink_live_locked(heap, mapping);
  hak_huge_unlock(heap);
  struct hak_huge *moved = hak_huge_mapping_move(heap, mapping, bytes);
  void *start = make_live(heap, moved != NULL ? moved : mapping);
  return moved != NULL ? start : NULL;
}

// Giving back

void hak_huge_return_excess(struct hak_huge_heap *heap) {
  if (hak_load_relaxed(&heap->cached_bytes) == 0) return;
  size_t excess_bytes = hak_retain_excess(&heap->pool->retain);
  if (excess_bytes == 0) return;
  uint64_t now = heap->os->now_ms();
  uint64_t looked_ms = hak_load_relaxed(&heap->excess_ms);
  if (now - looked_ms < HAK_HUGE_EXCESS_GRACE_MS || !hak_cas_relaxed(&heap->excess_ms, &looked_ms, now)) return;
  hak_huge_lock(heap);
  struct hak_huge *excess = hak_huge_cache_take_excess_locked(heap, excess_bytes, now);
  hak_huge_unlock(heap);
  unmap_excess(heap, excess);
}

void hak_huge_tick(struct hak_huge_heap *heap) {
  uint64_t now = heap->os->now_ms();
  hak_huge_lock(heap);
  struct hak_huge *expired = hak_huge_cache_evict_expired_locked(heap, now);
  hak_huge_unlock(heap);
  unmap_expired(heap, expired);
}

// Tries again to unmap what was refused, as long as that is of use: a program at the kernel's limit has thousands of
// such mappings, and may trim with each malloc.
static size_t unmap_refused(struct hak_huge_heap *heap) {
  size_t returned = 0, returned_now;
  do {
    hak_huge_lock(heap);
    struct hak_huge *refused = hak_huge_refused_take_locked(heap, REFUSED_PER_TRY);
    hak_huge_unlock(heap);
    returned_now = hak_huge_mappings_unmap(heap, refused);
    returned += returned_now;
  } while (returned_now != 0);
  return returned;
}

bool hak_huge_give_to_pool(struct hak_huge_heap *heap) {
  if (HAK_CONFIG_HARDENED) return false;  // it is a guard as a whole
  hak_huge_lock(heap);
  struct hak_huge *mapping = hak_huge_refused_take_superslabs_locked(heap);
  hak_huge_unlock(heap);
  if (mapping == NULL) return false;
  uintptr_t base = mapping->base;
  size_t bytes = hak_huge_bytes(mapping);
  if (!hak_pool_adopt(heap->pool, base, bytes / HAK_SUPERSLAB_BYTES)) {
    hak_huge_lock(heap);
    hak_huge_refused_add_locked(heap, mapping);
    hak_huge_unlock(heap);
    return false;
  }
  hak_registry_uncover(heap->os, base);  // the pool covers it as well
  hak_limit_give_back(&heap->pool->retain.limit, bytes);
  return true;
}

size_t hak_huge_trim(struct hak_huge_heap *heap, size_t keep_bytes) {
  hak_huge_lock(heap);
  struct hak_huge *evicted = hak_huge_cache_evict_locked(heap, keep_bytes, keep_bytes == 0 ? 0 : SIZE_MAX);
  hak_huge_unlock(heap);
  size_t returned = hak_huge_mappings_unmap(heap, evicted);
  return keep_bytes == 0 ? returned + unmap_refused(heap) : returned;
}

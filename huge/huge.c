#include "huge/huge.h"

#include <assert.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/poison.h"
#include "platform/lock.h"
#include "platform/os.h"
#include "platform/report.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

#define MIB ((size_t)1024 * 1024)

// Every mapping starts at such a multiple: page tables move by whole entries, and huge pages fit.
#define MAPPING_ALIGNMENT HAK_SUPERSLAB_BYTES

#define MAX_CACHED 32

#define REFUSED_PER_TRY 16

// What a block may hold beyond the request: a third of it where a cached mapping serves it, since pages that went back
// would be faulted in again when the mapping serves the next one; an eighth where it was made smaller, or in the
// hardened library nothing.
#define SLACK_OF_REUSED 3
#define SLACK_OF_SHRUNK (HAK_CONFIG_HARDENED ? SIZE_MAX : 8)

// Where it would be more, the pages at the end are kept all the same while those of all blocks together are no more
// than this part of the least that the process keeps: in turn with longer blocks they would be faulted in again each
// time.
#define RESTS_DIVISOR 2

// For requests of zeroed memory up to this size it pays to clear a cached mapping; larger ones are often touched
// sparsely.
#define MAX_CLEARED_BYTES (32 * MIB)

// The descriptor of a mapping, in the private slab descriptor of its first slab.
//
//   0       8        16      24      32           40       48            56      57         60
//   +-------+--------+-------+-------+------------+--------+-------------+-------+----------+------------+
//   | base  | bytes  | next  | prev  |  freed_ms  | origin | guard_bytes | clean | (unused) | rest_bytes |
//   +-------+--------+-------+-------+------------+--------+-------------+-------+----------+------------+
//
// base and origin are fixed. bytes belongs to the block's owner while the block lives and to the lock's holder while it
// is cached. The rest is guarded by the lock. A mapping is in one of the heap's three lists, live, cached or refused,
// or in the hands of the one thread that makes, moves or unmaps it; its registry entry is set exactly while it is live.
struct hak_huge {
  uintptr_t base;
  size_t bytes;  // atomic, relaxed: hak_huge_misuse_reason reads those of others
  struct hak_huge *next, *prev;
  uint64_t freed_ms;
  // The parts of what was once mapped by one call have the same number: the kernel remaps only within one of its areas.
  uint64_t origin;
  size_t guard_bytes;   // hardened: behind `bytes`, out of the program's reach
  bool clean;           // cached, and known to be zero
  uint32_t rest_bytes;  // live: the pages beyond the request that were kept
};

static_assert(sizeof(struct hak_huge) == HAK_DESCRIPTOR_BYTES, "a slab descriptor");
static_assert(offsetof(struct hak_huge, freed_ms) == 32, "as drawn");
static_assert(offsetof(struct hak_huge, rest_bytes) == 60, "as drawn");

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

// Descriptors

static struct hak_huge *descriptor_of(const void *p) {
  return (struct hak_huge *)hak_slab_private_descriptor((uintptr_t)p);
}

static bool is_start(const void *p) { return ((uintptr_t)p & (MAPPING_ALIGNMENT - 1)) == 0; }

static size_t bytes_of(const struct hak_huge *mapping) { return hak_load_relaxed(&mapping->bytes); }

// The region of `base` is covered.
static struct hak_huge *describe(uintptr_t base, size_t bytes, uint64_t origin) {
  struct hak_huge *mapping = descriptor_of((const void *)base);
  *mapping = (struct hak_huge){.base = base, .origin = origin};
  hak_store_relaxed(&mapping->bytes, bytes);
  return mapping;
}

// Lists

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
  change_live_bytes(heap, 0, bytes_of(mapping));
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
  change_live_bytes(heap, bytes_of(mapping), 0);
}

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
  hak_sub_relaxed(&heap->cached_bytes, bytes_of(mapping));
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, (size_t)0 - bytes_of(mapping));
}

// Takes the mapping out of the cache, and puts it first in *list.
static void take_cached_locked(struct hak_huge_heap *heap, struct hak_huge *mapping, struct hak_huge **list)
    HAK_REQUIRES(heap->lock) {
  unlink_cached_locked(heap, mapping);
  mapping->next = *list;
  *list = mapping;
}

// Caches the mapping, together with cached neighbours that are parts of the same one.
static void append_cached_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) HAK_REQUIRES(heap->lock) {
  hak_poison((void *)mapping->base, bytes_of(mapping));
  struct hak_huge *next;
  for (struct hak_huge *other = heap->cached_first; other != NULL; other = next) {
    next = other->next;
    if (other->origin != mapping->origin) continue;
    struct hak_huge *lower = other->base < mapping->base ? other : mapping;
    struct hak_huge *upper = lower == other ? mapping : other;
    if (lower->base + bytes_of(lower) != upper->base) continue;
    unlink_cached_locked(heap, other);
    // As old as most of it: a small piece that is used again and again does not keep the rest.
    lower->freed_ms = (bytes_of(lower) > bytes_of(upper) ? lower : upper)->freed_ms;
    hak_store_relaxed(&lower->bytes, bytes_of(lower) + bytes_of(upper));
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
  hak_add_relaxed(&heap->cached_bytes, bytes_of(mapping));
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, bytes_of(mapping));
}

// Where a process has as many mappings as the kernel allows, each unmapping in the middle of one is refused, and tried
// again it would be refused again: so these are apart from the others, for a request that finds nothing else, or a
// trim.
static void keep_refused_locked(struct hak_huge_heap *heap, struct hak_huge *mapping) HAK_REQUIRES(heap->lock) {
  hak_poison((void *)mapping->base, bytes_of(mapping));
  mapping->next = heap->refused;
  heap->refused = mapping;
  heap->refused_bytes += bytes_of(mapping);
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, bytes_of(mapping));
}

// Takes the mapping that *link points to.
static struct hak_huge *take_refused_locked(struct hak_huge_heap *heap, struct hak_huge **link)
    HAK_REQUIRES(heap->lock) {
  struct hak_huge *mapping = *link;
  *link = mapping->next;
  heap->refused_bytes -= bytes_of(mapping);
  if (!mapping->clean) hak_retain_add_unused_outside(&heap->pool->retain, (size_t)0 - bytes_of(mapping));
  return mapping;
}

// Makes the mapping, which is in the caller's hands, a live block.
static void *make_live(struct hak_huge_heap *heap, struct hak_huge *mapping) {
  hak_huge_lock(heap);
  link_live_locked(heap, mapping);
  hak_huge_unlock(heap);
  return (void *)mapping->base;
}

// The operating system

static struct hak_limit *limit_of(struct hak_huge_heap *heap) { return &heap->pool->retain.limit; }

// In the hardened library the last page of each mapping is guarded, a block that becomes smaller leaves a larger guard,
// and a freed block is a guard as a whole: it is cached without being used again, so that for a while nobody gets its
// addresses.

static size_t guard_page_bytes(const struct hak_huge_heap *heap) {
  return HAK_CONFIG_HARDENED ? heap->os->page_bytes : 0;
}

// Makes all of the mapping from `bytes` on a guard. False, and nothing has changed, when the kernel refuses.
static bool guard_from(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t guarded_bytes = bytes_of(mapping) - bytes;
  if (!heap->os->guard((void *)(mapping->base + bytes), guarded_bytes)) return false;
  mapping->guard_bytes += guarded_bytes;
  hak_store_relaxed(&mapping->bytes, bytes);
  hak_limit_give_back(limit_of(heap), guarded_bytes);
  return true;
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

// A new mapping that is in nobody's list yet; NULL when the operating system has no memory, or the limit
// (superslab/limit.h) does not allow for `held_bytes` more.
static struct hak_huge *map_new(struct hak_huge_heap *heap, size_t usable_bytes, size_t alignment, size_t held_bytes) {
  if (!hak_limit_take(limit_of(heap), held_bytes)) return NULL;
  struct hak_huge *mapping = map_counted(heap, usable_bytes, alignment);
  if (mapping == NULL) hak_limit_give_back(limit_of(heap), held_bytes);
  return mapping;
}

// Unmaps the mappings of a list that is linked by `next` and in the caller's hands; the number of bytes. What the
// kernel will not unmap stays, without its pages.
static size_t unmap_list(struct hak_huge_heap *heap, struct hak_huge *list) {
  size_t returned = 0;
  struct hak_huge *next;
  for (struct hak_huge *mapping = list; mapping != NULL; mapping = next) {
    next = mapping->next;
    size_t bytes = bytes_of(mapping);
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
    keep_refused_locked(heap, mapping);
    hak_huge_unlock(heap);
  }
  return returned;
}

static void unmap_expired(struct hak_huge_heap *heap, struct hak_huge *expired) {
  if (expired != NULL) hak_retain_gave_back_late(&heap->pool->retain, unmap_list(heap, expired));
}

// The cache

// Takes the longest unused mappings out of the cache until it is within the limits; the list of them.
static struct hak_huge *evict_locked(struct hak_huge_heap *heap, size_t limit_bytes, size_t limit_mappings)
    HAK_REQUIRES(heap->lock) {
  struct hak_huge *evicted = NULL;
  struct hak_huge *next;
  for (struct hak_huge *mapping = heap->cached_first; mapping != NULL; mapping = next) {
    if (heap->cached_bytes <= limit_bytes && heap->n_cached <= limit_mappings) break;
    next = mapping->next;
    take_cached_locked(heap, mapping, &evicted);
  }
  return evicted;
}

static struct hak_huge *expired_locked(struct hak_huge_heap *heap, uint64_t now) HAK_REQUIRES(heap->lock) {
  struct hak_huge *expired = NULL;
  struct hak_huge *next;
  for (struct hak_huge *mapping = heap->cached_first; mapping != NULL; mapping = next) {
    next = mapping->next;
    if (mapping->freed_ms > now || now - mapping->freed_ms < hak_retain_delay_ms(&heap->pool->retain)) continue;
    take_cached_locked(heap, mapping, &expired);
  }
  return expired;
}

// Whether a mapping of `bytes` is close enough to the request, by one of the divisors above and by 2 MiB at most, so
// that nothing is cut off.
static bool fits(size_t bytes, size_t wanted_bytes, size_t slack) {
  return bytes - wanted_bytes <= hak_min(wanted_bytes / slack, MAPPING_ALIGNMENT);
}

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
    if (best == NULL || suits_better(bytes_of(mapping), bytes_of(best), bytes)) best = mapping;
  }
  return best;
}

// Where a mapping of `bytes` or more that the kernel would not unmap is linked; NULL when none is aligned as wanted.
static struct hak_huge **find_refused_locked(struct hak_huge_heap *heap, size_t bytes, size_t alignment)
    HAK_REQUIRES(heap->lock) {
  for (struct hak_huge **link = &heap->refused; *link != NULL; link = &(*link)->next) {
    if (((*link)->base & (alignment - 1)) == 0 && bytes_of(*link) >= bytes) return link;
  }
  return NULL;
}

// Gives the end of `mapping` back to the operating system, from `bytes` on.
static void cut(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t cut_bytes = bytes_of(mapping) - bytes;
  if (!heap->os->unmap((void *)(mapping->base + bytes), cut_bytes)) return;
  hak_store_relaxed(&mapping->bytes, bytes);
  hak_limit_give_back(limit_of(heap), cut_bytes);
}

// Makes what `mapping` has beyond `bytes` a cached mapping of its own, as far as it can start one. `mapping` is in the
// caller's hands.
static void split(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t old_bytes = bytes_of(mapping);
  size_t head_bytes = hak_round_up(bytes, MAPPING_ALIGNMENT);
  if (head_bytes >= old_bytes || !hak_registry_cover(heap->os, mapping->base + head_bytes)) return;
  struct hak_huge *tail = describe(mapping->base + head_bytes, old_bytes - head_bytes, mapping->origin);
  tail->clean = mapping->clean;
  tail->freed_ms = mapping->freed_ms;
  hak_store_relaxed(&mapping->bytes, head_bytes);
  hak_huge_lock(heap);
  append_cached_locked(heap, tail);
  hak_huge_unlock(heap);
}

// Takes what is beyond `bytes` away from the program.
static void shrink(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  if (HAK_CONFIG_HARDENED) {
    (void)guard_from(heap, mapping, bytes);
  } else {
    cut(heap, mapping, bytes);
  }
}

// Remapping

// Tells the pool that memory without pages is about to be used. What is used of a Huge block nobody knows.
static void took_fresh(struct hak_huge_heap *heap, size_t bytes) {
  hak_retain_took_pages(&heap->pool->retain, 0, bytes);
}

// Makes the mapping `bytes` long where it is. False, and it is as it was, if the kernel cannot.
static bool grow_in_place(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t more_bytes = bytes - bytes_of(mapping);
  if (!hak_limit_take(limit_of(heap), more_bytes)) return false;
  if (heap->os->remap((void *)mapping->base, bytes_of(mapping), bytes, NULL) == NULL) {
    hak_limit_give_back(limit_of(heap), more_bytes);
    return false;
  }
  took_fresh(heap, more_bytes);
  hak_store_relaxed(&mapping->bytes, bytes);
  return true;
}

// Moves the pages of the mapping, which is in the caller's hands, to a new range of `bytes`. The descriptor there, or
// NULL; then the mapping is as it was.
static struct hak_huge *grow_elsewhere(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes) {
  size_t more_bytes = bytes + guard_page_bytes(heap) - bytes_of(mapping);
  struct hak_huge *target = map_new(heap, bytes, MAPPING_ALIGNMENT, more_bytes);
  if (target == NULL) return NULL;
  target->clean = mapping->clean;
  took_fresh(heap, bytes - bytes_of(mapping));
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
  (void)unmap_list(heap, target);
  return NULL;
}

// Malloc

// The cached mapping for the request, or a refused one where that is too small, taken out of its list; NULL if there is
// none.
static struct hak_huge *take_best_locked(struct hak_huge_heap *heap, size_t bytes, size_t alignment, bool want_zeroed)
    HAK_REQUIRES(heap->lock) {
  struct hak_huge *mapping = find_cached_locked(heap, bytes, alignment);
  if (mapping != NULL && want_zeroed && !mapping->clean && bytes_of(mapping) < bytes) mapping = NULL;
  if (mapping == NULL || bytes_of(mapping) < bytes) {
    struct hak_huge **link = find_refused_locked(heap, bytes, alignment);
    if (link != NULL) return take_refused_locked(heap, link);
  }
  if (mapping != NULL) unlink_cached_locked(heap, mapping);
  return mapping;
}

// Takes a mapping for the request out of what is kept; NULL if there is none.
static struct hak_huge *take_cached(struct hak_huge_heap *heap, size_t bytes, size_t alignment, bool want_zeroed) {
  uint64_t now = heap->os->now_ms();
  hak_huge_lock(heap);
  struct hak_huge *mapping = HAK_CONFIG_HARDENED ? NULL : take_best_locked(heap, bytes, alignment, want_zeroed);
  if (mapping != NULL) hak_unpoison((void *)mapping->base, bytes_of(mapping));
  struct hak_huge *expired = expired_locked(heap, now);
  hak_huge_unlock(heap);
  unmap_expired(heap, expired);
  return mapping;
}

// Whether the last `rest_bytes` of the mapping, which is in the caller's hands, keep their pages while it is in use.
static bool keeps_rest(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t rest_bytes) {
  size_t most_bytes = hak_load_relaxed(&heap->pool->retain.min_bytes) / RESTS_DIVISOR;
  if (hak_load_relaxed(&heap->rest_bytes) + rest_bytes > most_bytes) return false;
  hak_add_relaxed(&heap->rest_bytes, rest_bytes);
  mapping->rest_bytes = (uint32_t)rest_bytes;
  return true;
}

// Makes the cached mapping, which is in the caller's hands, `bytes` long or a little longer; NULL, and it is cached
// again, when it cannot be.
static struct hak_huge *adjust_cached(struct hak_huge_heap *heap, struct hak_huge *mapping, size_t bytes,
                                      size_t alignment) {
  if (bytes_of(mapping) < bytes) {
    // The pages it has need not be faulted in again; only the others are.
    if (grow_in_place(heap, mapping, bytes)) return mapping;
    struct hak_huge *grown = alignment > MAPPING_ALIGNMENT ? NULL : grow_elsewhere(heap, mapping, bytes);
    if (grown != NULL) return grown;
    hak_huge_lock(heap);
    append_cached_locked(heap, mapping);
    hak_huge_unlock(heap);
    return NULL;
  }
  if (fits(bytes_of(mapping), bytes, SLACK_OF_REUSED)) return mapping;
  split(heap, mapping, bytes);
  if (fits(bytes_of(mapping), bytes, SLACK_OF_REUSED)) return mapping;
  // Under a limit every byte that is mapped is held; else the rest stays mapped, so that the parts can become one
  // again.
  if (hak_load_relaxed(&limit_of(heap)->max_bytes) != HAK_LIMIT_NONE) cut(heap, mapping, bytes);
  size_t rest_bytes = bytes_of(mapping) - bytes;
  if (rest_bytes == 0 || mapping->clean || keeps_rest(heap, mapping, rest_bytes)) return mapping;
  (void)heap->os->purge((void *)(mapping->base + bytes), rest_bytes);
  return mapping;
}

// Of so much the pages are not cleared but given back: as dear as fresh ones, which would be held beside them.
static void purge_to_zero(struct hak_huge_heap *heap, struct hak_huge *mapping) {
  if (mapping->clean || !heap->os->purge((void *)mapping->base, bytes_of(mapping))) return;
  mapping->clean = true;
  took_fresh(heap, bytes_of(mapping));
}

void *hak_huge_malloc(struct hak_huge_heap *heap, size_t size, size_t alignment, bool *zeroed) {
  if (size > PTRDIFF_MAX) return NULL;
  size_t bytes = hak_round_up(hak_max(size, 1), heap->os->page_bytes);
  size_t held_bytes = bytes + guard_page_bytes(heap);
  alignment = hak_max(alignment, MAPPING_ALIGNMENT);

  struct hak_huge *mapping = take_cached(heap, bytes, alignment, zeroed != NULL);
  if (mapping != NULL) mapping = adjust_cached(heap, mapping, bytes, alignment);
  if (mapping != NULL && zeroed != NULL && bytes > MAX_CLEARED_BYTES) purge_to_zero(heap, mapping);
  bool clean = mapping == NULL || mapping->clean;
  if (mapping == NULL) {
    mapping = map_new(heap, bytes, alignment, held_bytes);
    if (mapping == NULL && hak_huge_trim(heap, 0) != 0) mapping = map_new(heap, bytes, alignment, held_bytes);
    if (mapping == NULL) return NULL;
    took_fresh(heap, bytes);
  }
  if (zeroed != NULL) *zeroed = clean;
  return make_live(heap, mapping);
}

// Free

// Takes the longest unused mappings out of the cache, for as long as the process keeps too much; the list of them.
// Guards hold no pages.
static struct hak_huge *evict_excess_locked(struct hak_huge_heap *heap) HAK_REQUIRES(heap->lock) {
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

static void unmap_excess(struct hak_huge_heap *heap, struct hak_huge *excess) {
  if (excess != NULL) hak_retain_gave_back_early(&heap->pool->retain, unmap_list(heap, excess));
}

// How long what was kept is not given back though it has become too much: a program in phases, at whose peaks the limit
// ends, uses it again soon. And how often somebody looks.
#define EXCESS_GRACE_MS 20
// The part of a mapping that must be too much: a whole one for a little would be missed.
#define EXCESS_DIVISOR 2

// Takes the longest unused mapping that holds pages out of the cache, if it is to be given back; else NULL.
static struct hak_huge *take_excess_locked(struct hak_huge_heap *heap, size_t excess_bytes, uint64_t now)
    HAK_REQUIRES(heap->lock) {
  struct hak_huge *mapping = heap->cached_first;
  while (mapping != NULL && mapping->clean) mapping = mapping->next;
  if (mapping == NULL || excess_bytes < bytes_of(mapping) / EXCESS_DIVISOR) return NULL;
  if (now < mapping->freed_ms + EXCESS_GRACE_MS) return NULL;
  unlink_cached_locked(heap, mapping);
  mapping->next = NULL;
  return mapping;
}

void hak_huge_return_excess(struct hak_huge_heap *heap) {
  if (hak_load_relaxed(&heap->cached_bytes) == 0) return;
  size_t excess_bytes = hak_retain_excess(&heap->pool->retain);
  if (excess_bytes == 0) return;
  uint64_t now = heap->os->now_ms();
  uint64_t looked_ms = hak_load_relaxed(&heap->excess_ms);
  if (now - looked_ms < EXCESS_GRACE_MS || !hak_cas_relaxed(&heap->excess_ms, &looked_ms, now)) return;
  hak_huge_lock(heap);
  struct hak_huge *excess = take_excess_locked(heap, excess_bytes, now);
  hak_huge_unlock(heap);
  unmap_excess(heap, excess);
}

void hak_huge_free(struct hak_huge_heap *heap, void *p) {
  uint64_t now = heap->os->now_ms();
  hak_huge_lock(heap);
  // Under the lock, so that of two threads that free the same block one is told.
  if (!is_start(p) || hak_entry_kind(hak_registry_find(p)) != HAK_KIND_HUGE) {
    hak_huge_unlock(heap);
    hak_huge_misuse(heap, "free", p);
  }
  struct hak_huge *mapping = descriptor_of(p);
  unlink_live_locked(heap, mapping);
  mapping->clean = HAK_CONFIG_HARDENED && heap->os->guard((void *)mapping->base, bytes_of(mapping));
  mapping->freed_ms = now;
  append_cached_locked(heap, mapping);
  struct hak_huge *surplus = evict_locked(heap, heap->diet ? 0 : SIZE_MAX, MAX_CACHED);
  struct hak_huge *excess = evict_excess_locked(heap);
  struct hak_huge *expired = expired_locked(heap, now);
  hak_huge_unlock(heap);
  (void)unmap_list(heap, surplus);
  unmap_excess(heap, excess);
  unmap_expired(heap, expired);
}

bool hak_huge_owns(struct hak_huge_heap *heap, const void *p) {
  hak_huge_lock(heap);
  const struct hak_huge *mapping = heap->live;
  while (mapping != NULL && (uintptr_t)p - mapping->base >= bytes_of(mapping)) mapping = mapping->next;
  hak_huge_unlock(heap);
  return mapping != NULL;
}

const char *hak_huge_misuse_reason(struct hak_huge_heap *heap, const void *p) {
  const char *reason = NULL;
  uintptr_t address = (uintptr_t)p;
  hak_huge_lock(heap);
  for (const struct hak_huge *mapping = heap->live; mapping != NULL; mapping = mapping->next) {
    if (address - mapping->base < bytes_of(mapping) && address != mapping->base) reason = HAK_MISUSE_NOT_START;
  }
  const struct hak_huge *freed[] = {heap->cached_first, heap->refused};
  for (size_t i = 0; i < sizeof freed / sizeof freed[0]; ++i) {
    for (const struct hak_huge *mapping = freed[i]; mapping != NULL; mapping = mapping->next) {
      if (address - mapping->base >= bytes_of(mapping)) continue;
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

size_t hak_huge_usable_size(const void *p) { return is_start(p) ? bytes_of(descriptor_of(p)) : 0; }

void *hak_huge_resize(struct hak_huge_heap *heap, void *p, size_t size, bool may_move) {
  if (size > PTRDIFF_MAX) return NULL;
  struct hak_huge *mapping = descriptor_of(p);
  size_t bytes = hak_round_up(hak_max(size, 1), heap->os->page_bytes);
  size_t old_bytes = bytes_of(mapping);
  if (bytes <= old_bytes) {
    if (!fits(old_bytes, bytes, SLACK_OF_SHRUNK)) shrink(heap, mapping, bytes);
    change_live_bytes(heap, old_bytes, bytes_of(mapping));
    return p;
  }
  if (grow_in_place(heap, mapping, bytes)) {
    change_live_bytes(heap, old_bytes, bytes);
    return p;
  }
  if (!may_move) return NULL;

  // Off the list before it moves: the old range is anybody's from then on.
  hak_huge_lock(heap);
  unlink_live_locked(heap, mapping);
  hak_huge_unlock(heap);
  struct hak_huge *moved = grow_elsewhere(heap, mapping, bytes);
  void *start = make_live(heap, moved != NULL ? moved : mapping);
  return moved != NULL ? start : NULL;
}

// Decay

void hak_huge_tick(struct hak_huge_heap *heap) {
  uint64_t now = heap->os->now_ms();
  hak_huge_lock(heap);
  struct hak_huge *expired = expired_locked(heap, now);
  hak_huge_unlock(heap);
  unmap_expired(heap, expired);
}

// Tries again to unmap what was refused, as long as that is of use: a program at the kernel's limit has thousands of
// such mappings, and may trim with each malloc.
static size_t unmap_refused(struct hak_huge_heap *heap) {
  size_t returned = 0, returned_now;
  do {
    struct hak_huge *list = NULL;
    hak_huge_lock(heap);
    for (int i = 0; i < REFUSED_PER_TRY && heap->refused != NULL; ++i) {
      struct hak_huge *mapping = take_refused_locked(heap, &heap->refused);
      mapping->next = list;
      list = mapping;
    }
    hak_huge_unlock(heap);
    returned_now = unmap_list(heap, list);
    returned += returned_now;
  } while (returned_now != 0);
  return returned;
}

static struct hak_huge *take_superslabs_locked(struct hak_huge_heap *heap) HAK_REQUIRES(heap->lock) {
  for (struct hak_huge **link = &heap->refused; *link != NULL; link = &(*link)->next) {
    bool serves = (*link)->clean && (*link)->guard_bytes == 0 && bytes_of(*link) % HAK_SUPERSLAB_BYTES == 0;
    if (serves) return take_refused_locked(heap, link);
  }
  return NULL;
}

bool hak_huge_give_to_pool(struct hak_huge_heap *heap) {
  if (HAK_CONFIG_HARDENED) return false;  // it is a guard as a whole
  hak_huge_lock(heap);
  struct hak_huge *mapping = take_superslabs_locked(heap);
  hak_huge_unlock(heap);
  if (mapping == NULL) return false;
  uintptr_t base = mapping->base;
  size_t bytes = bytes_of(mapping);
  if (!hak_pool_adopt(heap->pool, base, bytes / HAK_SUPERSLAB_BYTES)) {
    hak_huge_lock(heap);
    keep_refused_locked(heap, mapping);
    hak_huge_unlock(heap);
    return false;
  }
  hak_registry_uncover(heap->os, base);  // the pool covers it as well
  hak_limit_give_back(limit_of(heap), bytes);
  return true;
}

size_t hak_huge_trim(struct hak_huge_heap *heap, size_t keep_bytes) {
  hak_huge_lock(heap);
  struct hak_huge *evicted = evict_locked(heap, keep_bytes, keep_bytes == 0 ? 0 : SIZE_MAX);
  hak_huge_unlock(heap);
  size_t returned = unmap_list(heap, evicted);
  return keep_bytes == 0 ? returned + unmap_refused(heap) : returned;
}

#include "superslab/pool.h"

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "base/poison.h"
#include "platform/lock.h"
#include "platform/report.h"
#include "superslab/registry.h"
#include "superslab/superslab.h"

// SuperSlabs that one tick gives back at most, about a quarter of a millisecond each: others wait for the lock.
#define RETURNS_PER_TICK 4

// A huge page may take so many times as long as its memory in pages one by one: it spares entries of the TLB as well.
#define HUGE_PAGE_WORTH 2

// What did not pay is tried again when the other has taken so many times as long as it did.
#define TIME_PER_TRY 16

// SuperSlabs with the same number of free slabs in which a run is looked for.
#define LOOKS_PER_COUNT 32

#define META_CHUNK_BYTES ((size_t)64 * 1024)

void hak_pool_init(struct hak_pool *pool, const struct hak_os *os) {
  *pool = (struct hak_pool){.os = os,
                            .retain = {.os = os,
                                       .delay_ms = HAK_POOL_PURGE_DELAY_MS,
                                       .min_bytes = HAK_RETAIN_MIN_BYTES,
                                       .limit = {.max_bytes = HAK_LIMIT_NONE}}};
  hak_mutex_init(&pool->lock);
}

void hak_pool_lock(struct hak_pool *pool) { hak_lock(&pool->lock); }
void hak_pool_unlock(struct hak_pool *pool) { hak_unlock(&pool->lock); }

// Lists

static size_t n_free(const struct hak_superslab *superslab) { return (size_t)hak_count_bits(superslab->free_map); }

static void link_by_free(struct hak_pool *pool, struct hak_superslab *superslab) HAK_REQUIRES(pool->lock) {
  size_t n = n_free(superslab);
  if (n == 0) return;
  superslab->prev = NULL;
  superslab->next = pool->by_free[n];
  if (superslab->next != NULL) superslab->next->prev = superslab;
  pool->by_free[n] = superslab;
  pool->with_free |= (uint64_t)1 << n;
}

static void unlink_by_free(struct hak_pool *pool, struct hak_superslab *superslab) HAK_REQUIRES(pool->lock) {
  size_t n = n_free(superslab);
  if (n == 0) return;
  if (superslab->next != NULL) superslab->next->prev = superslab->prev;
  if (superslab->prev != NULL) {
    superslab->prev->next = superslab->next;
  } else {
    pool->by_free[n] = superslab->next;
    if (superslab->next == NULL) pool->with_free &= ~((uint64_t)1 << n);
  }
}

// Whether there is something to give back: pages, or the address space of a whole SuperSlab.
static bool is_returnable(const struct hak_superslab *superslab) {
  return superslab->dirty_map != 0 || superslab->free_map == HAK_SUPERSLAB_ALL_FREE;
}

static void unlink_unused(struct hak_pool *pool, struct hak_superslab *superslab) HAK_REQUIRES(pool->lock) {
  if (superslab->younger != NULL) {
    superslab->younger->older = superslab->older;
  } else {
    pool->youngest_unused = superslab->older;
  }
  if (superslab->older != NULL) {
    superslab->older->younger = superslab->younger;
  } else {
    pool->oldest_unused = superslab->younger;
  }
}

static void append_unused(struct hak_pool *pool, struct hak_superslab *superslab) HAK_REQUIRES(pool->lock) {
  superslab->younger = NULL;
  superslab->older = pool->youngest_unused;
  if (superslab->older != NULL) {
    superslab->older->younger = superslab;
  } else {
    pool->oldest_unused = superslab;
  }
  pool->youngest_unused = superslab;
}

static size_t dirty_bytes(const struct hak_superslab *superslab) {
  return (size_t)hak_count_bits(superslab->dirty_map) * HAK_SLAB_BYTES;
}

// Changes which slabs are free, and which of these dirty, at the time `used_ms`; the SuperSlab becomes the youngest of
// the unused ones if it is one then.
static void set_maps(struct hak_pool *pool, struct hak_superslab *superslab, uint32_t free_map, uint32_t dirty_map,
                     uint64_t used_ms) HAK_REQUIRES(pool->lock) {
  size_t before = dirty_bytes(superslab);
  if (is_returnable(superslab)) unlink_unused(pool, superslab);
  if (free_map != superslab->free_map) {
    unlink_by_free(pool, superslab);
    superslab->free_map = free_map;
    link_by_free(pool, superslab);
  }
  superslab->dirty_map = dirty_map;
  superslab->used_ms = used_ms;
  if (is_returnable(superslab)) append_unused(pool, superslab);
  hak_retain_add_unused_outside(&pool->retain, dirty_bytes(superslab) - before);
}

// Growth

static bool register_superslabs_locked(struct hak_pool *pool, uintptr_t base, size_t count, uint64_t now)
    HAK_REQUIRES(pool->lock) {
  for (size_t i = 0; i < count; ++i) {
    if (hak_registry_cover(pool->os, base + i * HAK_SUPERSLAB_BYTES)) continue;
    while (i-- != 0) hak_registry_uncover(pool->os, base + i * HAK_SUPERSLAB_BYTES);
    return false;
  }
  for (size_t i = 0; i < count; ++i) {
    struct hak_superslab *superslab = hak_superslab_descriptor(base + i * HAK_SUPERSLAB_BYTES);
    *superslab = (struct hak_superslab){.base = base + i * HAK_SUPERSLAB_BYTES};
    set_maps(pool, superslab, HAK_SUPERSLAB_ALL_FREE, 0, now);
  }
  hak_add_relaxed(&pool->n_superslabs, count);
  return true;
}

// Huge pages are not to inflate a small process, nor many threads that each have a little of many kinds, whatever the
// system's setting: of the run of such a kind, which is a part of a SuperSlab, most may never be touched.
static void choose_page_size_locked(struct hak_pool *pool, uintptr_t base, size_t count, enum hak_demand demand)
    HAK_REQUIRES(pool->lock) {
  enum hak_thp thp = (enum hak_thp)hak_load_relaxed(&pool->thp);
  bool is_small = hak_load_relaxed(&pool->retain.backed_bytes) < HAK_POOL_SMALL_BYTES;
  if (thp == HAK_THP_AUTO && demand != HAK_DEMAND_LITTLE && !is_small) return;
  pool->os->huge_pages((void *)base, count * HAK_SUPERSLAB_BYTES, thp == HAK_THP_ALWAYS);
  for (size_t i = 0; i < count; ++i) {
    hak_superslab_descriptor(base + i * HAK_SUPERSLAB_BYTES)->refuses_huge_pages = thp != HAK_THP_ALWAYS;
  }
}

static bool grow_locked(struct hak_pool *pool, size_t count, enum hak_demand demand, uint64_t now)
    HAK_REQUIRES(pool->lock) {
  // Below the last one, where the kernel's own top-down search would go as well: neighbours share one mapping.
  size_t bytes = count * HAK_SUPERSLAB_BYTES;
  void *hint = pool->last_mapped > bytes ? (void *)(pool->last_mapped - bytes) : NULL;
  uintptr_t base = (uintptr_t)hak_os_map_aligned(pool->os, hint, bytes, HAK_SUPERSLAB_BYTES);
  if (base == 0) return false;
  if (!register_superslabs_locked(pool, base, count, now)) {
    pool->os->unmap((void *)base, bytes);
    return false;
  }
  hak_poison((void *)base, bytes);
  pool->last_mapped = base;
  choose_page_size_locked(pool, base, count, demand);
  return true;
}

bool hak_pool_adopt(struct hak_pool *pool, uintptr_t base, size_t count) {
  uint64_t now = pool->os->now_ms();
  hak_poison((void *)base, count * HAK_SUPERSLAB_BYTES);
  hak_pool_lock(pool);
  bool done = register_superslabs_locked(pool, base, count, now);
  hak_pool_unlock(pool);
  return done;
}

// Population: a process that grows gets the pages of a whole SuperSlab at once, most of the time one huge page, instead
// of a fault for each. They count as unused until their slabs are taken, and go back as others do if they are not.

// Not where an eighth of what the process has would be unused, and so not before it has 16 MiB.
static bool may_populate(const struct hak_pool *pool) {
  size_t unused = hak_load_relaxed(&pool->retain.unused_bytes) + HAK_SUPERSLAB_BYTES;
  return unused <= hak_load_relaxed(&pool->retain.backed_bytes) / 8;
}

// If so, it counts as held. Asked for first, since to be refused counts as pressure, and this is no need.
static bool takes_for_populating_locked(struct hak_pool *pool, const struct hak_superslab *superslab, bool hot)
    HAK_REQUIRES(pool->lock) {
  bool is_fresh = superslab->free_map == HAK_SUPERSLAB_ALL_FREE && superslab->dirty_map == 0;
  bool wanted = hak_load_relaxed(&pool->thp) == HAK_THP_ALWAYS || (hot && may_populate(pool));
  return is_fresh && wanted && !hak_load_relaxed(&pool->cannot_populate) &&
         !hak_limit_refuses(&pool->retain.limit, HAK_SUPERSLAB_BYTES) &&
         hak_limit_take(&pool->retain.limit, HAK_SUPERSLAB_BYTES);
}

// What a huge page costs depends on the machine's state: a fifth of the same memory in pages one by one where the
// kernel has one at hand, ten times as much where others' pages have to be moved, or a hypervisor has taken the memory
// back and has to find it again. So both ways are timed whenever they are used, and the one that pays is taken; the
// other is tried again when this one has taken so much time that a try does not matter. At first nothing is known, and
// huge pages pay; where the kernel does not tell the time, they always do.
static bool wants_huge_page(const struct hak_pool *pool) {
  enum hak_thp thp = (enum hak_thp)hak_load_relaxed(&pool->thp);
  if (thp != HAK_THP_AUTO) return thp == HAK_THP_ALWAYS;
  uint64_t huge_ns = hak_load_relaxed(&pool->populate_ns[true]);
  uint64_t small_ns = hak_load_relaxed(&pool->populate_ns[false]);
  bool huge_pays = huge_ns <= HUGE_PAGE_WORTH * small_ns;
  uint64_t other_ns = huge_pays ? small_ns : huge_ns;
  bool try_other = hak_load_relaxed(&pool->since_ns[huge_pays]) > TIME_PER_TRY * other_ns;
  return huge_pays != try_other;
}

// Not under the lock, since it takes as long as some hundred faults. Who takes other slabs of it meanwhile may touch
// them: the kernel keeps what it finds.
static void populate(struct hak_pool *pool, uintptr_t superslab, bool may_be_huge) {
  bool huge = may_be_huge && wants_huge_page(pool);
  uint64_t start = pool->os->thread_ns();
  if (!pool->os->populate((void *)superslab, HAK_SUPERSLAB_BYTES, huge)) {
    hak_store_relaxed(&pool->cannot_populate, true);
    return;
  }
  uint64_t ns = pool->os->thread_ns() - start;
  hak_store_relaxed(&pool->populate_ns[huge], ns);
  hak_add_relaxed(&pool->since_ns[huge], ns);
  hak_store_relaxed(&pool->since_ns[!huge], 0);
}

// Return

static void purge_locked(struct hak_pool *pool, struct hak_superslab *superslab, uint64_t now)
    HAK_REQUIRES(pool->lock) {
  uint32_t dirty = superslab->dirty_map;
  uint32_t kept = 0;
  for (uint32_t rest = dirty; rest != 0;) {
    size_t first;
    size_t count = hak_lowest_run(rest, &first);
    uint32_t mask = hak_superslab_mask(first, count);
    if (!pool->os->purge((void *)(superslab->base + first * HAK_SLAB_BYTES), count * HAK_SLAB_BYTES)) kept |= mask;
    rest &= ~mask;
  }
  // What cannot be given back (locked memory) is asked for again, but neither soon nor before all others.
  set_maps(pool, superslab, superslab->free_map, kept, now + HAK_POOL_PURGE_DELAY_MS);
}

static bool unmap_locked(struct hak_pool *pool, struct hak_superslab *superslab) HAK_REQUIRES(pool->lock) {
  // Out of the lists first: once it is unmapped, another pool may get its addresses and with them its descriptor.
  uintptr_t base = superslab->base;
  uint32_t dirty = superslab->dirty_map;
  set_maps(pool, superslab, 0, 0, 0);
  if (pool->os->unmap((void *)base, HAK_SUPERSLAB_BYTES)) {
    hak_registry_uncover(pool->os, base);
    // The next one goes here again, and not ever further down: each place costs a region, or a part of one.
    pool->last_mapped = hak_max(pool->last_mapped, base + HAK_SUPERSLAB_BYTES);
    hak_sub_relaxed(&pool->n_superslabs, 1);
    return true;
  }
  hak_poison((void *)base, HAK_SUPERSLAB_BYTES);
  set_maps(pool, superslab, HAK_SUPERSLAB_ALL_FREE, dirty, 0);
  return false;
}

// Gives back the pages of `superslab` and, if all of it is free, the address space. Returns the bytes.
static size_t return_locked(struct hak_pool *pool, struct hak_superslab *superslab, uint64_t now)
    HAK_REQUIRES(pool->lock) {
  size_t bytes = dirty_bytes(superslab);
  if (superslab->free_map != HAK_SUPERSLAB_ALL_FREE || !unmap_locked(pool, superslab)) {
    purge_locked(pool, superslab, now);
    bytes -= dirty_bytes(superslab);
  }
  hak_limit_give_back(&pool->retain.limit, bytes);
  return bytes;
}

static bool is_due(const struct hak_superslab *superslab, uint64_t now, uint64_t delay_ms) {
  return superslab->used_ms <= now && now - superslab->used_ms >= delay_ms;
}

static void tick_locked(struct hak_pool *pool, uint64_t now) HAK_REQUIRES(pool->lock) {
  uint64_t delay_ms = hak_retain_delay_ms(&pool->retain);
  // Address space alone is worth keeping for a moment, whatever the option says.
  uint64_t clean_delay_ms = hak_max(delay_ms, HAK_POOL_PURGE_DELAY_MS);
  struct hak_superslab *next;
  int left = RETURNS_PER_TICK;
  for (struct hak_superslab *superslab = pool->oldest_unused; superslab != NULL && left-- != 0; superslab = next) {
    next = superslab->younger;
    if (!is_due(superslab, now, delay_ms)) return;
    if (superslab->dirty_map == 0 && !is_due(superslab, now, clean_delay_ms)) continue;
    hak_retain_gave_back_late(&pool->retain, return_locked(pool, superslab, now));
  }
}

// Gives back what is kept beyond the limit.
static void give_back_excess_locked(struct hak_pool *pool, uint64_t now) HAK_REQUIRES(pool->lock) {
  struct hak_superslab *superslab;
  int left = RETURNS_PER_TICK;
  while (left-- != 0 && hak_retain_excess(&pool->retain) != 0 && (superslab = pool->oldest_unused) != NULL &&
         superslab->used_ms <= now) {
    hak_retain_gave_back_early(&pool->retain, return_locked(pool, superslab, now));
  }
}

// Runs

bool hak_pool_count_whole(struct hak_pool *pool, uintptr_t base, size_t n_slabs, size_t dirty_bytes) {
  if (dirty_bytes == 0) return false;
  struct hak_limit *limit = &pool->retain.limit;
  size_t clean_bytes = n_slabs * HAK_SLAB_BYTES - dirty_bytes;
  if (HAK_LIKELY(hak_limit_take(limit, clean_bytes))) return true;
  if (pool->os->purge((void *)base, n_slabs * HAK_SLAB_BYTES)) {
    hak_limit_give_back(limit, dirty_bytes);
    return false;
  }
  hak_limit_add(limit, clean_bytes);
  return true;
}

// The fullest SuperSlab that has room, so that the emptier ones can become empty. Of as many free slabs, it looks at a
// few only: among thousands all might have none side by side.
static struct hak_superslab *find_locked(struct hak_pool *pool, size_t n_slabs) HAK_REQUIRES(pool->lock) {
  uint64_t candidates = pool->with_free & ~(((uint64_t)1 << n_slabs) - 1);
  while (candidates != 0) {
    unsigned n = (unsigned)__builtin_ctzl(candidates);
    struct hak_superslab *superslab = pool->by_free[n];
    for (int left = LOOKS_PER_COUNT; superslab != NULL && left != 0; superslab = superslab->next, --left) {
      if (hak_superslab_runs(superslab->free_map, n_slabs) != 0) return superslab;
    }
    candidates &= candidates - 1;
  }
  return NULL;
}

static uintptr_t take_locked(struct hak_pool *pool, struct hak_superslab *superslab, size_t n_slabs, bool *zeroed,
                             uint64_t now) HAK_REQUIRES(pool->lock) {
  // Slabs that still hold pages first: their first touch does not fault.
  uint32_t runs = hak_superslab_runs(superslab->free_map, n_slabs);
  uint32_t backed_runs = runs & hak_superslab_runs(superslab->dirty_map, n_slabs);
  size_t first = (size_t)__builtin_ctz(backed_runs != 0 ? backed_runs : runs);
  uint32_t mask = hak_superslab_mask(first, n_slabs);
  uintptr_t base = superslab->base + first * HAK_SLAB_BYTES;
  size_t n_dirty = (size_t)hak_count_bits(superslab->dirty_map & mask);
  // Nobody knows which part of the run holds pages.
  bool dirty = hak_pool_count_whole(pool, base, n_slabs, n_dirty * HAK_SLAB_BYTES);
  if (zeroed != NULL) *zeroed = !dirty;

  // What is left is likely to be taken next.
  set_maps(pool, superslab, superslab->free_map & ~mask, superslab->dirty_map & ~mask, now);
  hak_add_relaxed(&pool->n_slabs_used, n_slabs);
  return base;
}

uintptr_t hak_pool_acquire(struct hak_pool *pool, size_t n_slabs, enum hak_demand demand, bool *zeroed) {
  HAK_CHECK(hak_is_power_of_two(n_slabs) && n_slabs <= HAK_SUPERSLAB_SLABS);
  bool hot = demand == HAK_DEMAND_MANY;
  hak_pool_lock(pool);
  // Where nothing is unused, and nothing will be that one run is not taken of, the time does not matter.
  bool needs_time = pool->oldest_unused != NULL || hot || hak_load_relaxed(&pool->thp) == HAK_THP_ALWAYS;
  uint64_t now = needs_time ? pool->os->now_ms() : 0;
  struct hak_superslab *superslab = find_locked(pool, n_slabs);
  if (superslab == NULL) {
    bool grown = (hot && grow_locked(pool, 2, demand, now)) || grow_locked(pool, 1, demand, now);
    if (grown) superslab = find_locked(pool, n_slabs);
  }
  bool populates = superslab != NULL && takes_for_populating_locked(pool, superslab, hot);
  if (populates) set_maps(pool, superslab, HAK_SUPERSLAB_ALL_FREE, HAK_SUPERSLAB_ALL_FREE, now);
  uintptr_t base = superslab == NULL ? 0 : take_locked(pool, superslab, n_slabs, zeroed, now);
  bool may_be_huge = populates && !superslab->refuses_huge_pages;
  tick_locked(pool, now);
  hak_pool_unlock(pool);
  if (populates) populate(pool, hak_round_down(base, HAK_SUPERSLAB_BYTES), may_be_huge);
  return base;
}

void hak_pool_release(struct hak_pool *pool, uintptr_t base, size_t n_slabs, bool dirty) {
  uint64_t now = pool->os->now_ms();
  hak_pool_lock(pool);
  struct hak_superslab *superslab = hak_superslab_descriptor(base);
  uint32_t mask = hak_superslab_mask((base >> HAK_SLAB_SHIFT) % HAK_SUPERSLAB_SLABS, n_slabs);
  HAK_CHECK((superslab->free_map & mask) == 0);
  set_maps(pool, superslab, superslab->free_map | mask, superslab->dirty_map | (dirty ? mask : 0), now);
  // What is clean and wholly free only holds address space, and descriptors in the registry: one is enough.
  bool is_clean = superslab->free_map == HAK_SUPERSLAB_ALL_FREE && superslab->dirty_map == 0;
  if (is_clean && superslab->next != NULL) (void)unmap_locked(pool, superslab);
  hak_sub_relaxed(&pool->n_slabs_used, n_slabs);
  give_back_excess_locked(pool, now);
  tick_locked(pool, now);
  hak_pool_unlock(pool);
}

void hak_pool_tick(struct hak_pool *pool) {
  uint64_t now = pool->os->now_ms();
  hak_pool_lock(pool);
  tick_locked(pool, now);
  hak_pool_unlock(pool);
}

size_t hak_pool_trim(struct hak_pool *pool, size_t keep_bytes) {
  uint64_t now = pool->os->now_ms();
  size_t kept = 0;
  size_t returned = 0;
  hak_pool_lock(pool);
  // What cannot be given back goes to the end of the list, where it is not met again.
  struct hak_superslab *last = pool->youngest_unused;
  struct hak_superslab *next;
  for (struct hak_superslab *superslab = pool->oldest_unused; superslab != NULL; superslab = next) {
    next = superslab == last ? NULL : superslab->younger;
    size_t bytes = dirty_bytes(superslab);
    if (bytes != 0 && kept + bytes <= keep_bytes) {
      kept += bytes;
    } else {
      returned += return_locked(pool, superslab, now);
    }
  }
  hak_retain_trimmed(&pool->retain);
  hak_pool_unlock(pool);
  return returned;
}

void hak_pool_destroy(struct hak_pool *pool) {
  (void)hak_pool_trim(pool, 0);
  hak_mutex_destroy(&pool->lock);
}

// Metadata

void *hak_pool_meta_alloc(struct hak_pool *pool, size_t bytes) {
  bytes = hak_round_up(bytes, HAK_DESCRIPTOR_BYTES);
  hak_pool_lock(pool);
  if ((size_t)(pool->meta_end - pool->meta_next) < bytes) {
    size_t chunk_bytes = hak_round_up(hak_max(bytes, META_CHUNK_BYTES), pool->os->page_bytes);
    char *chunk = hak_os_map_metadata(pool->os, chunk_bytes);
    if (chunk == NULL) {
      hak_pool_unlock(pool);
      return NULL;
    }
    pool->meta_next = chunk;
    pool->meta_end = chunk + chunk_bytes;
  }
  void *block = pool->meta_next;
  pool->meta_next += bytes;
  hak_pool_unlock(pool);
  return block;
}

#include "ace/ace.h"

#include "ace/ace_arena.h"
#include "ace/ace_class.h"
#include "ace/ace_inline.h"
#include "ace/ace_superslab.h"
#include "base/atomic.h"
#include "base/bits.h"
#include "platform/lock.h"
#include "platform/report.h"
#include "superslab/registry.h"

// In weights (ace_inline.h).
#define PAGE_WEIGHT ((size_t)1 << HAK_ACE_EXTENT_PAGES_SHIFT)
#define MIB_WEIGHT (((size_t)1024 * 1024 >> HAK_ACE_PAGE_SHIFT) * PAGE_WEIGHT)
#define MIN_BUDGET (1 * MIB_WEIGHT)
#define MAX_BUDGET (32 * MIB_WEIGHT)

// Every so many misses the clock is read, and what is due is done.
#define MISSES_PER_TICK 16

// A block that is resized may stay this many classes larger than it need be, a quarter at most.
#define MAX_CLASSES_ABOVE_RESIZED 2

// Victims are collected before they are given back, so that one lock serves several.
#define MAX_VICTIMS 64

struct victims {
  size_t n;
  void *extents[MAX_VICTIMS + 1];  // and one that was never cached
};

void hak_ace_init(struct hak_ace *ace, struct hak_pool *pool, bool diet) {
  ace->pool = pool;
  ace->diet = diet;
  for (size_t i = 0; i < HAK_ACE_ARENAS; ++i) hak_ace_arena_init(&ace->arenas[i]);
}

void hak_ace_destroy(struct hak_ace *ace) {
  (void)hak_ace_trim(ace, 0);
  for (size_t i = 0; i < HAK_ACE_ARENAS; ++i) hak_mutex_destroy(&ace->arenas[i].lock);
}

static uint64_t now_ms(const struct hak_ace *ace) { return ace->pool->os->now_ms(); }

// Eviction

static uint64_t bit_of(size_t size_class) { return (uint64_t)1 << size_class; }

static size_t count_of(const struct hak_ace_cache *cache, size_t size_class) {
  return hak_ace_cache_count(cache, size_class);
}

static void set_limit(struct hak_ace_cache *cache, size_t size_class, size_t limit) {
  cache->end[size_class] = cache->stacks->slots[size_class] + hak_min(hak_max(limit, 1), HAK_ACE_CACHE_DEPTH);
}

static void give_back(struct hak_ace *ace, struct victims *victims, uint64_t now) {
  hak_ace_arena_free(ace, victims->extents, victims->n, now);
  victims->n = 0;
}

// Takes the `n` longest cached extents out of the class's stack. They keep their mark.
static void evict(struct hak_ace *ace, struct hak_ace_cache *cache, size_t size_class, size_t n,
                  struct victims *victims, uint64_t now) {
  if (victims->n + n > MAX_VICTIMS) give_back(ace, victims, now);
  struct hak_ace_cached *stack = cache->stacks->slots[size_class];
  size_t left = count_of(cache, size_class) - n;
  // Emptied first, so that a fork in between loses extents instead of finding them twice.
  hak_store_release(&cache->top[size_class], stack);
  for (size_t i = 0; i < n; ++i) {
    victims->extents[victims->n++] = stack[i].extent;
    cache->room += hak_load_relaxed(stack[i].word) & ~HAK_ACE_UNUSED;
  }
  for (size_t i = 0; i < left; ++i) stack[i] = stack[i + n];
  hak_store_release(&cache->top[size_class], stack + left);
  if (left == 0) {
    cache->nonempty &= ~bit_of(size_class);
    cache->emptied |= bit_of(size_class);
  }
}

// Evicts from every class in `classes`: half of what it has, rounded up, or all.
static void evict_classes(struct hak_ace *ace, struct hak_ace_cache *cache, uint64_t classes, bool all, uint64_t now) {
  struct victims victims;
  victims.n = 0;
  for (uint64_t rest = cache->nonempty & classes; rest != 0; rest &= rest - 1) {
    size_t size_class = (size_t)__builtin_ctzl(rest);
    size_t count = count_of(cache, size_class);
    evict(ace, cache, size_class, all ? count : (count + 1) / 2, &victims, now);
  }
  give_back(ace, &victims, now);
}

// Adaptation

// There is room for `weight`.
static void lower_budget(struct hak_ace_cache *cache, uint32_t weight) {
  cache->budget -= weight;
  cache->room -= weight;
}

// Once per decay time: a class that was not once empty since the last time is deeper than it need be. Half of it goes,
// and the limits come down by as much.
static void decay_if_due(struct hak_ace *ace, struct hak_ace_cache *cache, uint64_t now) {
  if (cache->decayed_ms == 0) cache->decayed_ms = now;  // the first time
  if (now - cache->decayed_ms < hak_retain_delay_ms(&ace->pool->retain)) return;
  cache->decayed_ms = now;
  uint64_t unused = cache->nonempty & ~cache->emptied;
  cache->emptied = 0;
  uint32_t room_before = cache->room;
  evict_classes(ace, cache, unused, false, now);
  for (; unused != 0; unused &= unused - 1) {
    size_t size_class = (size_t)__builtin_ctzl(unused);
    set_limit(cache, size_class, count_of(cache, size_class));
  }
  lower_budget(cache, hak_min(cache->room - room_before, cache->budget - (uint32_t)MIN_BUDGET));
}

// Binds the cache to the arena with the fewest threads; the first of them, so that a program in which threads come and
// go keeps to few arenas.
static bool start_cache(struct hak_ace *ace, struct hak_ace_cache *cache) {
  struct hak_ace_arena *arena = &ace->arenas[0];
  for (size_t i = 1; i < HAK_ACE_ARENAS; ++i) {
    if (hak_load_relaxed(&ace->arenas[i].n_threads) < hak_load_relaxed(&arena->n_threads)) arena = &ace->arenas[i];
  }
  struct hak_ace_stacks *stacks = hak_ace_arena_take_stacks(ace, arena);
  if (stacks == NULL) return false;
  hak_add_relaxed(&arena->n_threads, 1);
  cache->stacks = stacks;
  cache->arena = arena;
  cache->budget = MIN_BUDGET;
  cache->room = MIN_BUDGET;
  for (size_t c = 0; c < HAK_ACE_CLASSES; ++c) {
    cache->top[c] = stacks->slots[c];
    set_limit(cache, c, 1);
  }
  return true;
}

// Whether `cache` may be used, which is started where it was not.
static bool is_cached(struct hak_ace *ace, struct hak_ace_cache *cache) {
  return cache != NULL && !ace->diet && (cache->arena != NULL || start_cache(ace, cache));
}

// How far a budget may grow: all caches of an arena together to a third of what the arena has, so that caches stay in
// proportion to what the program uses, whatever its number of threads.
static uint32_t budget_limit(const struct hak_ace_cache *cache) {
  size_t n_pages = hak_load_relaxed(&cache->arena->n_superslabs) * HAK_ACE_SUPERSLAB_PAGES;
  size_t share = n_pages * PAGE_WEIGHT / (3 * hak_max(hak_load_relaxed(&cache->arena->n_threads), 1));
  return (uint32_t)hak_max(hak_min(share, MAX_BUDGET), MIN_BUDGET);
}

// A miss after an overflow of the class says that a deeper cache would have had the extent.
static void adapt_to_miss(struct hak_ace_cache *cache, size_t size_class) {
  uint64_t bit = bit_of(size_class);
  if ((cache->overflowed & bit) != 0) {
    cache->overflowed &= ~bit;
    set_limit(cache, size_class, (size_t)(cache->end[size_class] - cache->stacks->slots[size_class]) + 1);
  }
  if ((cache->evicted & bit) != 0) {
    cache->evicted &= ~bit;
    uint32_t growth = hak_ace_extent_make(hak_ace_class_pages(size_class));
    if (cache->budget + growth <= budget_limit(cache)) {
      cache->budget += growth;
      cache->room += growth;
    }
  }
}

// Malloc

// From the first arena in turn that has room; the pool is asked for more on behalf of `own` only.
static void *malloc_from_any(struct hak_ace *ace, struct hak_ace_arena *own, size_t n_pages, size_t align_pages,
                             bool *zeroed) {
  void *p = hak_ace_arena_malloc(ace, own, n_pages, align_pages, true, zeroed);
  for (size_t i = 0; p == NULL && i < HAK_ACE_ARENAS; ++i) {
    p = hak_ace_arena_malloc(ace, &ace->arenas[i], n_pages, align_pages, false, zeroed);
  }
  return p;
}

static HAK_NOINLINE void *malloc_slow(struct hak_ace *ace, struct hak_ace_cache *cache, size_t size_class,
                                      size_t alignment, bool *zeroed) {
  size_t n_pages = hak_ace_class_pages(size_class);
  size_t align_pages = hak_max(alignment >> HAK_ACE_PAGE_SHIFT, 1);
  if (!is_cached(ace, cache)) return malloc_from_any(ace, &ace->arenas[0], n_pages, align_pages, zeroed);

  if (++cache->n_misses % MISSES_PER_TICK == 0) {
    uint64_t now = now_ms(ace);
    decay_if_due(ace, cache, now);
    hak_ace_arena_tick(ace, cache->arena, now);
  }
  adapt_to_miss(cache, size_class);
  void *p = hak_ace_arena_malloc(ace, cache->arena, n_pages, align_pages, true, zeroed);
  if (HAK_LIKELY(p != NULL)) return p;
  // Out of memory: what this thread holds back may make room.
  evict_classes(ace, cache, cache->nonempty, true, now_ms(ace));
  return malloc_from_any(ace, cache->arena, n_pages, align_pages, zeroed);
}

void *hak_ace_malloc(struct hak_ace *ace, struct hak_ace_cache *cache, size_t size, size_t alignment, bool *zeroed) {
  if (size == 0) size = 1;
  if (size > HAK_ACE_MAX_BYTES || alignment > HAK_ACE_MAX_ALIGNMENT) return NULL;
  size_t size_class = hak_ace_class_of_size(size);
  void *p = cache == NULL ? NULL : hak_ace_cache_pop_class(cache, &hak_ace_class_tables, size_class, alignment);
  if (HAK_UNLIKELY(p == NULL)) return malloc_slow(ace, cache, size_class, alignment, zeroed);
  if (zeroed != NULL) *zeroed = false;
  return p;
}

// Free

// Makes room for `weight` by evicting from one class after the other, round and round.
static void evict_for_room(struct hak_ace *ace, struct hak_ace_cache *cache, uint32_t weight, struct victims *victims,
                           uint64_t now) {
  while (cache->room < weight) {
    uint64_t below = cache->nonempty & (bit_of(cache->next_victim) - 1);
    size_t victim = hak_log2_floor(below != 0 ? below : cache->nonempty);
    evict(ace, cache, victim, 1, victims, now);
    cache->evicted |= bit_of(victim);
    cache->next_victim = (uint32_t)victim;
  }
}

// Where the program has become smaller, the cache follows.
static void limit_budget(struct hak_ace *ace, struct hak_ace_cache *cache, struct victims *victims, uint64_t now) {
  uint32_t surplus = cache->budget - hak_min(cache->budget, budget_limit(cache));
  evict_for_room(ace, cache, surplus, victims, now);
  lower_budget(cache, surplus);
}

static HAK_NOINLINE void free_slow(struct hak_ace *ace, struct hak_ace_cache *cache, void *p, uint32_t extent) {
  uint64_t now = now_ms(ace);
  if (!is_cached(ace, cache)) {
    if (!hak_ace_arena_free_live(ace, p, now)) hak_ace_misuse(ace, "free", p);
    return;
  }
  decay_if_due(ace, cache, now);
  struct victims victims;
  victims.n = 0;
  limit_budget(ace, cache, &victims, now);
  size_t size_class = extent & HAK_ACE_EXTENT_CLASS;
  if (cache->top[size_class] >= cache->end[size_class]) {
    evict(ace, cache, size_class, 1, &victims, now);
    cache->overflowed |= bit_of(size_class);
  }
  if (extent <= cache->budget) {
    evict_for_room(ace, cache, extent, &victims, now);
    (void)hak_ace_cache_push(cache, p);
  } else {
    cache->evicted |= bit_of(size_class);
    victims.extents[victims.n++] = p;
  }
  give_back(ace, &victims, now);
}

void hak_ace_free(struct hak_ace *ace, struct hak_ace_cache *cache, void *p) {
  if (cache != NULL && HAK_LIKELY(hak_ace_cache_push(cache, p))) return;
  uint32_t extent = hak_load_relaxed(hak_ace_extent_of(p));
  if (HAK_UNLIKELY(!hak_ace_extent_is_live(extent) || !hak_ace_is_page(p))) hak_ace_misuse(ace, "free", p);
  free_slow(ace, cache, p, extent);
}

void hak_ace_misuse(struct hak_ace *ace, const char *function, const void *p) {
  bool is_unused = false;
  if (hak_ace_is_page(p)) {
    // All locks: whose SuperSlab it is may change meanwhile. One that has left ACE was unused as a whole.
    hak_ace_lock(ace);
    bool is_aces = hak_entry_kind(hak_registry_find(p)) == HAK_KIND_ACE;
    is_unused = !is_aces || hak_ace_superslab_is_unused(hak_ace_superslab_of(p), p);
    hak_ace_unlock(ace);
  }
  hak_fatal_misuse(function, p, is_unused ? HAK_MISUSE_DOUBLE_FREE : HAK_MISUSE_NOT_START);
}

// The rest

size_t hak_ace_usable_size(const void *p) {
  uint32_t extent = hak_load_relaxed(hak_ace_extent_of(p));
  if (!hak_ace_extent_is_live(extent) || !hak_ace_is_page(p)) return 0;
  return hak_ace_extent_pages(extent) << HAK_ACE_PAGE_SHIFT;
}

bool hak_ace_resize(struct hak_ace *ace, void *p, size_t size) {
  if (size == 0) size = 1;
  if (size > HAK_ACE_MAX_BYTES) return false;
  size_t old_pages = hak_ace_extent_pages(hak_load_relaxed(hak_ace_extent_of(p)));
  size_t size_class = hak_ace_class_of_size(size);
  size_t class_pages = hak_ace_class_pages(size_class);
  if (class_pages <= old_pages) {
    size_t classes_above = hak_ace_class_of_extent(old_pages) - size_class;
    if (!ace->diet && classes_above <= MAX_CLASSES_ABOVE_RESIZED) return true;
    return hak_ace_arena_resize(ace, p, class_pages, now_ms(ace));
  }
  size_t exact_pages = hak_round_up(size, HAK_ACE_PAGE_BYTES) >> HAK_ACE_PAGE_SHIFT;
  return exact_pages <= old_pages || hak_ace_arena_resize(ace, p, class_pages, now_ms(ace)) ||
         hak_ace_arena_resize(ace, p, exact_pages, now_ms(ace));
}

void hak_ace_cache_flush(struct hak_ace *ace, struct hak_ace_cache *cache) {
  if (cache->arena == NULL) return;
  evict_classes(ace, cache, cache->nonempty, true, now_ms(ace));
  hak_ace_arena_put_stacks(cache->arena, cache->stacks);
  hak_sub_relaxed(&cache->arena->n_threads, 1);
  *cache = (struct hak_ace_cache){.arena = NULL};
}

void hak_ace_tick(struct hak_ace *ace, struct hak_ace_cache *cache) {
  uint64_t now = now_ms(ace);
  if (cache != NULL && cache->arena != NULL) decay_if_due(ace, cache, now);
  for (size_t i = 0; i < HAK_ACE_ARENAS; ++i) hak_ace_arena_tick(ace, &ace->arenas[i], now);
}

size_t hak_ace_trim(struct hak_ace *ace, size_t keep_bytes) {
  size_t returned = 0;
  for (size_t i = 0; i < HAK_ACE_ARENAS; ++i) returned += hak_ace_arena_trim(ace, &ace->arenas[i], &keep_bytes);
  return returned;
}

struct hak_ace_stats hak_ace_stats_locked(const struct hak_ace *ace) {
  struct hak_ace_stats stats = {.superslab_bytes = 0};
  for (size_t i = 0; i < HAK_ACE_ARENAS; ++i) {
    stats.superslab_bytes += hak_load_relaxed(&ace->arenas[i].n_superslabs) * HAK_SUPERSLAB_BYTES;
    stats.free_bytes += hak_ace_arena_free_bytes_locked(&ace->arenas[i]);
  }
  return stats;
}

void hak_ace_lock(struct hak_ace *ace) {
  for (size_t i = 0; i < HAK_ACE_ARENAS; ++i) hak_lock(&ace->arenas[i].lock);
}

void hak_ace_unlock(struct hak_ace *ace) {
  for (size_t i = HAK_ACE_ARENAS; i-- > 0;) hak_unlock(&ace->arenas[i].lock);
}

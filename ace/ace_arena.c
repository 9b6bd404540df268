#include "ace/ace_arena.h"

#include "ace/ace_class.h"
#include "ace/ace_inline.h"
#include "ace/ace_superslab.h"
#include "base/atomic.h"
#include "base/bits.h"
#include "platform/lock.h"
#include "platform/report.h"

// Wholly free SuperSlabs that an arena keeps. With none, a program that uses one block of more than 1 MiB at a time
// would take a SuperSlab from the pool and give it back each time.
#define MAX_EMPTY 1

// SuperSlabs whose pages one tick returns at most, since the arena is locked meanwhile.
#define MAX_PURGES_PER_TICK 4

void hak_ace_arena_init(struct hak_ace_arena *arena) {
  *arena = (struct hak_ace_arena){.n_superslabs = 0};
  hak_mutex_init(&arena->lock);
}

static void lock_arena(struct hak_ace_arena *arena) HAK_ACQUIRES(arena->lock) { hak_lock(&arena->lock); }
static void unlock_arena(struct hak_ace_arena *arena) HAK_RELEASES(arena->lock) { hak_unlock(&arena->lock); }

// Lists

static void link_by_run(struct hak_ace_arena *arena, struct hak_ace_superslab *superslab) HAK_REQUIRES(arena->lock) {
  if (superslab->run < HAK_ACE_MIN_PAGES) return;
  size_t n = hak_ace_class_of_extent(superslab->run);
  superslab->prev = NULL;
  superslab->next = arena->by_run[n];
  if (superslab->next != NULL) superslab->next->prev = superslab;
  arena->by_run[n] = superslab;
  arena->with_run |= (uint64_t)1 << n;
}

static void unlink_by_run(struct hak_ace_arena *arena, struct hak_ace_superslab *superslab) HAK_REQUIRES(arena->lock) {
  if (superslab->run < HAK_ACE_MIN_PAGES) return;
  size_t n = hak_ace_class_of_extent(superslab->run);
  if (superslab->next != NULL) superslab->next->prev = superslab->prev;
  if (superslab->prev != NULL) {
    superslab->prev->next = superslab->next;
  } else {
    arena->by_run[n] = superslab->next;
    if (superslab->next == NULL) arena->with_run &= ~((uint64_t)1 << n);
  }
}

static void unlink_dirty(struct hak_ace_arena *arena, struct hak_ace_superslab *superslab) HAK_REQUIRES(arena->lock) {
  if (!superslab->in_dirty_list) return;
  superslab->in_dirty_list = false;
  if (superslab->dirty_next != NULL) {
    superslab->dirty_next->dirty_prev = superslab->dirty_prev;
  } else {
    arena->dirty_last = superslab->dirty_prev;
  }
  if (superslab->dirty_prev != NULL) {
    superslab->dirty_prev->dirty_next = superslab->dirty_next;
  } else {
    hak_store_relaxed(&arena->dirty_first, superslab->dirty_next);
  }
}

static void append_dirty(struct hak_ace_arena *arena, struct hak_ace_superslab *superslab) HAK_REQUIRES(arena->lock) {
  superslab->in_dirty_list = true;
  superslab->dirty_next = NULL;
  superslab->dirty_prev = arena->dirty_last;
  if (arena->dirty_last != NULL) {
    arena->dirty_last->dirty_next = superslab;
  } else {
    hak_store_relaxed(&arena->dirty_first, superslab);
  }
  arena->dirty_last = superslab;
}

// What a SuperSlab says of the pages it keeps.
struct pages {
  size_t n_dirty;
  size_t n_unused;
};

static struct pages pages_of(const struct hak_ace_superslab *superslab) {
  return (struct pages){superslab->n_dirty, hak_ace_superslab_free_dirty(superslab)};
}

// Tells the pool how the pages of `superslab` have changed since `before`.
static void pages_changed(struct hak_ace *ace, const struct hak_ace_superslab *superslab, struct pages before) {
  struct hak_retain *retain = &ace->pool->retain;
  struct pages now = pages_of(superslab);
  hak_retain_add_unused(retain, (now.n_unused - before.n_unused) << HAK_ACE_PAGE_SHIFT);
  if (now.n_dirty > before.n_dirty) {
    size_t bytes = (now.n_dirty - before.n_dirty) << HAK_ACE_PAGE_SHIFT;
    hak_retain_took_pages(retain, bytes, bytes);
  } else if (now.n_dirty < before.n_dirty) {
    hak_retain_lost_pages(retain, (before.n_dirty - now.n_dirty) << HAK_ACE_PAGE_SHIFT);
  }
}

// Which pages an extent will take, and whether they hold memory already, is known only afterwards: so all of them are
// asked for, and took_of gives back what was too much.
static bool may_take(struct hak_ace *ace, size_t n_pages) {
  return hak_limit_take(&ace->pool->retain.limit, n_pages << HAK_ACE_PAGE_SHIFT);
}

static void took_of(struct hak_ace *ace, const struct hak_ace_superslab *superslab, struct pages before,
                    size_t n_pages) {
  size_t n_were_held = n_pages - (superslab->n_dirty - before.n_dirty);
  hak_limit_give_back(&ace->pool->retain.limit, n_were_held << HAK_ACE_PAGE_SHIFT);
}

static size_t purge(struct hak_ace *ace, struct hak_ace_superslab *superslab) {
  struct pages before = pages_of(superslab);
  size_t bytes = hak_ace_superslab_purge(superslab, ace->pool->os);
  pages_changed(ace, superslab, before);
  hak_limit_give_back(&ace->pool->retain.limit, bytes);
  return bytes;
}

static bool is_empty(const struct hak_ace_superslab *superslab) { return superslab->n_free == HAK_ACE_SUPERSLAB_PAGES; }

// Growth and return of SuperSlabs. The pool's lock is taken under the arena's, so that a fork, which takes all of them,
// never finds a SuperSlab that is in neither's lists.

static struct hak_ace_superslab *grow_locked(struct hak_ace *ace, struct hak_ace_arena *arena)
    HAK_REQUIRES(arena->lock) {
  bool zeroed = false;
  uintptr_t base = hak_pool_acquire(ace->pool, HAK_SUPERSLAB_SLABS, HAK_DEMAND_WHOLE, &zeroed);
  if (base == 0) return NULL;
  struct hak_ace_superslab *superslab = hak_ace_superslab_init(base, arena, zeroed);
  struct hak_retain *retain = &ace->pool->retain;
  hak_retain_add_unused(retain, hak_ace_superslab_free_dirty(superslab) << HAK_ACE_PAGE_SHIFT);
  hak_retain_took_pages(retain, (size_t)superslab->n_dirty << HAK_ACE_PAGE_SHIFT, 0);
  hak_registry_set(base, HAK_SUPERSLAB_SLABS, hak_entry_make(0, HAK_KIND_ACE));
  hak_add_relaxed(&arena->n_superslabs, 1);
  ++arena->n_empty;
  link_by_run(arena, superslab);
  if (!zeroed) {
    // What is not handed out of it soon goes back, as if it had been freed here.
    superslab->freed_ms = ace->pool->os->now_ms();
    append_dirty(arena, superslab);
  }
  return superslab;
}

// `superslab` is wholly free.
static void release_locked(struct hak_ace *ace, struct hak_ace_arena *arena, struct hak_ace_superslab *superslab)
    HAK_REQUIRES(arena->lock) {
  unlink_by_run(arena, superslab);
  unlink_dirty(arena, superslab);
  hak_sub_relaxed(&arena->n_superslabs, 1);
  --arena->n_empty;
  hak_registry_set(superslab->base, HAK_SUPERSLAB_SLABS, 0);
  size_t dirty_bytes = (size_t)superslab->n_dirty << HAK_ACE_PAGE_SHIFT;
  hak_retain_sub_unused(&ace->pool->retain, dirty_bytes);
  hak_retain_lost_pages(&ace->pool->retain, dirty_bytes);
  bool dirty = hak_pool_count_whole(ace->pool, superslab->base, HAK_SUPERSLAB_SLABS, dirty_bytes);
  hak_pool_release(ace->pool, superslab->base, HAK_SUPERSLAB_SLABS, dirty);
}

// Extents

static struct hak_ace_superslab *find_locked(struct hak_ace_arena *arena, size_t n_pages, size_t align_pages)
    HAK_REQUIRES(arena->lock) {
  // With room to spare for the alignment any run does; in a wholly free SuperSlab the first page is aligned.
  size_t run = hak_min(n_pages + align_pages - 1, HAK_ACE_SUPERSLAB_PAGES);
  uint64_t candidates = arena->with_run & ~(uint64_t)0 << hak_ace_class_of_size(run << HAK_ACE_PAGE_SHIFT);
  // The shortest run that is long enough: fuller SuperSlabs fill up, and emptier ones can become empty.
  return candidates == 0 ? NULL : arena->by_run[__builtin_ctzl(candidates)];
}

static void *take_locked(struct hak_ace *ace, struct hak_ace_arena *arena, struct hak_ace_superslab *superslab,
                         size_t n_pages, size_t align_pages, bool *zeroed) HAK_REQUIRES(arena->lock) {
  if (is_empty(superslab)) --arena->n_empty;
  struct pages before = pages_of(superslab);
  unlink_by_run(arena, superslab);
  void *extent = hak_ace_superslab_take(superslab, n_pages, align_pages, zeroed);
  link_by_run(arena, superslab);
  pages_changed(ace, superslab, before);
  took_of(ace, superslab, before, n_pages);
  return extent;
}

void *hak_ace_arena_malloc(struct hak_ace *ace, struct hak_ace_arena *arena, size_t n_pages, size_t align_pages,
                           bool grow, bool *zeroed) {
  void *extent = NULL;
  lock_arena(arena);
  struct hak_ace_superslab *superslab = find_locked(arena, n_pages, align_pages);
  // Asked first: address space without pages would be of no use.
  if ((superslab != NULL || grow) && may_take(ace, n_pages)) {
    if (superslab == NULL) superslab = grow_locked(ace, arena);
    if (superslab != NULL) {
      extent = take_locked(ace, arena, superslab, n_pages, align_pages, zeroed);
    } else {
      hak_limit_give_back(&ace->pool->retain.limit, n_pages << HAK_ACE_PAGE_SHIFT);
    }
  }
  unlock_arena(arena);
  return extent;
}

// Returns the pages of the SuperSlab that was unused the longest; their bytes.
static size_t return_first_locked(struct hak_ace *ace, struct hak_ace_arena *arena) HAK_REQUIRES(arena->lock) {
  struct hak_ace_superslab *superslab = arena->dirty_first;
  // What cannot be purged (locked memory) is not asked for again before it was used.
  unlink_dirty(arena, superslab);
  size_t bytes = purge(ace, superslab);
  if (is_empty(superslab)) release_locked(ace, arena, superslab);
  return bytes;
}

static void tick_locked(struct hak_ace *ace, struct hak_ace_arena *arena, uint64_t now_ms) HAK_REQUIRES(arena->lock) {
  for (size_t n = 0; n < MAX_PURGES_PER_TICK; ++n) {
    const struct hak_ace_superslab *superslab = arena->dirty_first;
    // Another thread may have read the clock after this one, and freed before.
    if (superslab == NULL || superslab->freed_ms > now_ms) return;
    if (now_ms - superslab->freed_ms < hak_retain_delay_ms(&ace->pool->retain)) return;
    hak_retain_gave_back_late(&ace->pool->retain, return_first_locked(ace, arena));
  }
}

// Returns what the process keeps beyond its limit.
static void give_back_excess_locked(struct hak_ace *ace, struct hak_ace_arena *arena) HAK_REQUIRES(arena->lock) {
  for (size_t n = 0; n < MAX_PURGES_PER_TICK && arena->dirty_first != NULL; ++n) {
    if (hak_retain_excess(&ace->pool->retain) == 0) return;
    hak_retain_gave_back_early(&ace->pool->retain, return_first_locked(ace, arena));
  }
}

// After pages of `superslab` have become free; it may be gone then.
static void freed_locked(struct hak_ace *ace, struct hak_ace_arena *arena, struct hak_ace_superslab *superslab,
                         uint64_t now_ms) HAK_REQUIRES(arena->lock) {
  superslab->freed_ms = now_ms;
  unlink_dirty(arena, superslab);
  if (ace->diet) {
    (void)purge(ace, superslab);
  } else {
    append_dirty(arena, superslab);
  }
  if (is_empty(superslab) && ++arena->n_empty > (ace->diet ? 0 : MAX_EMPTY)) release_locked(ace, arena, superslab);
  give_back_excess_locked(ace, arena);
}

static void put_locked(struct hak_ace *ace, struct hak_ace_arena *arena, struct hak_ace_superslab *superslab,
                       void *extent, uint64_t now_ms) HAK_REQUIRES(arena->lock) {
  struct pages before = pages_of(superslab);
  unlink_by_run(arena, superslab);
  hak_ace_superslab_put(superslab, extent);
  link_by_run(arena, superslab);
  pages_changed(ace, superslab, before);
  freed_locked(ace, arena, superslab, now_ms);
}

void hak_ace_arena_free(struct hak_ace *ace, void *const *extents, size_t n, uint64_t now_ms) {
  struct hak_ace_superslab *superslab;
  for (size_t i = 0; i < n;) {
    struct hak_ace_arena *arena = hak_ace_superslab_of(extents[i])->arena;
    lock_arena(arena);
    tick_locked(ace, arena, now_ms);
    for (; i < n && (superslab = hak_ace_superslab_of(extents[i]))->arena == arena; ++i) {
      put_locked(ace, arena, superslab, extents[i], now_ms);
    }
    unlock_arena(arena);
  }
}

bool hak_ace_arena_free_live(struct hak_ace *ace, void *p, uint64_t now_ms) {
  struct hak_ace_superslab *superslab = hak_ace_superslab_of(p);
  struct hak_ace_arena *arena = superslab->arena;
  lock_arena(arena);
  bool is_live = hak_ace_extent_is_live(hak_load_relaxed(hak_ace_extent_of(p)));
  if (is_live) {
    put_locked(ace, arena, superslab, p, now_ms);
    tick_locked(ace, arena, now_ms);
  }
  unlock_arena(arena);
  return is_live;
}

bool hak_ace_arena_resize(struct hak_ace *ace, void *p, size_t n_pages, uint64_t now_ms) {
  struct hak_ace_superslab *superslab = hak_ace_superslab_of(p);
  struct hak_ace_arena *arena = superslab->arena;
  lock_arena(arena);
  struct pages before = pages_of(superslab);
  size_t free_before = superslab->n_free;
  size_t old_pages = hak_ace_extent_pages(hak_load_relaxed(hak_ace_extent_of(p)));
  size_t n_more = n_pages - hak_min(n_pages, old_pages);
  unlink_by_run(arena, superslab);
  bool done = false;
  if (may_take(ace, n_more)) {
    done = hak_ace_superslab_resize(superslab, p, n_pages);
    took_of(ace, superslab, before, n_more);
  }
  link_by_run(arena, superslab);
  pages_changed(ace, superslab, before);
  if (superslab->n_free > free_before) freed_locked(ace, arena, superslab, now_ms);
  tick_locked(ace, arena, now_ms);
  unlock_arena(arena);
  return done;
}

void hak_ace_arena_tick(struct hak_ace *ace, struct hak_ace_arena *arena, uint64_t now_ms) {
  // A hint: what another thread is just freeing is not due anyway.
  if (hak_load_relaxed(&arena->dirty_first) == NULL) return;
  lock_arena(arena);
  tick_locked(ace, arena, now_ms);
  unlock_arena(arena);
}

size_t hak_ace_arena_trim(struct hak_ace *ace, struct hak_ace_arena *arena, size_t *keep_bytes) {
  size_t returned = 0;
  lock_arena(arena);
  struct hak_ace_superslab *next;
  for (struct hak_ace_superslab *superslab = arena->dirty_first; superslab != NULL; superslab = next) {
    next = superslab->dirty_next;
    size_t bytes = hak_ace_superslab_free_dirty(superslab) << HAK_ACE_PAGE_SHIFT;
    if (bytes <= *keep_bytes) {
      *keep_bytes -= bytes;
      continue;
    }
    unlink_dirty(arena, superslab);
    returned += purge(ace, superslab);
    if (is_empty(superslab)) release_locked(ace, arena, superslab);
  }
  unlock_arena(arena);
  return returned;
}

// Stacks. Those that no cache uses are linked by their first slot.

static void **stacks_link(struct hak_ace_stacks *stacks) { return &stacks->slots[0][0].extent; }

struct hak_ace_stacks *hak_ace_arena_take_stacks(struct hak_ace *ace, struct hak_ace_arena *arena) {
  lock_arena(arena);
  struct hak_ace_stacks *stacks = arena->stacks_free;
  if (stacks != NULL) arena->stacks_free = *stacks_link(stacks);
  unlock_arena(arena);
  if (stacks != NULL) return stacks;
  void *memory = hak_pool_meta_alloc(ace->pool, sizeof *stacks + HAK_ACE_STACK_BYTES);
  if (memory == NULL) return NULL;
  return (struct hak_ace_stacks *)hak_round_up((uintptr_t)memory, HAK_ACE_STACK_BYTES);
}

void hak_ace_arena_put_stacks(struct hak_ace_arena *arena, struct hak_ace_stacks *stacks) {
  lock_arena(arena);
  *stacks_link(stacks) = arena->stacks_free;
  arena->stacks_free = stacks;
  unlock_arena(arena);
}

size_t hak_ace_arena_free_bytes_locked(const struct hak_ace_arena *arena) {
  size_t n_pages = 0;
  for (uint64_t rest = arena->with_run; rest != 0; rest &= rest - 1) {
    const struct hak_ace_superslab *superslab = arena->by_run[__builtin_ctzl(rest)];
    for (; superslab != NULL; superslab = superslab->next) n_pages += superslab->n_free;
  }
  return n_pages << HAK_ACE_PAGE_SHIFT;
}

// Visits: how a thread gets at the heap of another one that sleeps, and how a fork finds all heaps whole.
//
// A thread works on its own heap without a lock. Whoever else wants to must know that it is not at work just now, and
// keep it from starting:
//
//   owner                                        visitor (holds the visit lock)
//   -----                                        -------
//   inside = 1                                   owner_id = HAK_NO_OWNER
//   (compiler barrier)                           os->barrier(): every thread passes a full barrier
//   owner_id is mine? go on                      inside is 0? the heap is the visitor's
//   inside = 0                                   owner_id = the heap's id again
//
// One of the two sees what the other wrote, since the visitor's system call stands for both barriers; so the owner pays
// for none. An owner that finds HAK_NO_OWNER waits for the visit lock. What it does without entering, the hot paths,
// concerns what it has at hand, the lists of its cache and recent blocks, and no visitor touches these; of a current
// slab only the blocks that were freed in other ways.
//
// In a fork's child the threads that do not exist any more are found outside; in a hot path at most, of which every
// store leaves the lists whole: a block that is neither in a list nor in the program's hands is lost, and nothing more.
// (That a fork copies a prefix of each thread's stores: they are all made before the kernel write-protects its pages,
// or all after.)
//
// Dice, Huang and Yang, "Asymmetric Dekker synchronization" (2001), describe the idea.
#include <sched.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "heap/heap_internal.h"
#include "platform/lock.h"
#include "platform/report.h"
#include "platform/threads.h"

struct hak_seat hak_no_seat = {.owner_id = HAK_NO_OWNER};

static HAK_COLD void wait_for_visitor(struct hak_heap *heap) {
  hak_add_relaxed(&heap->set->n_waits, 1);
  hak_add_relaxed(&heap->set->n_waiting, 1);
  hak_lock(&heap->set->visit_lock);
  hak_store_relaxed(&heap->seat.owner_id, heap->id);
  hak_unlock(&heap->set->visit_lock);
  hak_sub_relaxed(&heap->set->n_waiting, 1);
}

void hak_heap_enter(struct hak_cache *cache) {
  for (;;) {
    if (HAK_LIKELY(hak_heap_enter_fast(cache->seat) != HAK_NO_OWNER)) return;
    hak_heap_leave(cache->seat);
    wait_for_visitor(cache->heap);
  }
}

void hak_heap_fatal(struct hak_cache *cache, const char *function, const void *p, const char *reason) {
  hak_heap_leave(cache->seat);
  hak_fatal_misuse(function, p, reason);
}

// Acquire: pairs with hak_heap_leave, publishes what the owner did.
static bool is_outside(const struct hak_heap *heap) { return hak_load_acquire(&heap->seat.inside) == 0; }

static bool is_visited(const struct hak_heap *heap) { return hak_load_relaxed(&heap->seat.owner_id) == HAK_NO_OWNER; }

static bool is_own(const struct hak_heap *heap, const struct hak_cache *cache) {
  return cache != NULL && cache->heap == heap;
}

static void readmit(struct hak_heap *heap) { hak_store_release(&heap->seat.owner_id, heap->id); }

// Finds out whether the heap's thread has ended without giving it up, and gives it up then. Called with the visit lock.
static void give_up_if_lost(struct hak_heap *heap) {
  if (HAK_LIKELY(!hak_life_is_over(heap->life))) return;
  if (is_outside(heap)) {
    hak_heap_abandon_lost(heap);
  } else {
    hak_heap_forget(heap);
  }
}

// Keeps all threads but the calling one, or all that have not ticked since `since`, from their heaps. Whether there are
// any whose heaps can be visited.
static bool keep_out_locked(struct hak_heap_set *set, const struct hak_cache *cache, uint64_t since)
    HAK_REQUIRES(set->visit_lock) {
  bool any = false;
  for (struct hak_heap *heap = set->newest_attached; heap != NULL; heap = heap->older) {
    if (is_own(heap, cache) || hak_load_relaxed(&heap->decayed_ms) > since) continue;
    hak_store_relaxed(&heap->seat.owner_id, HAK_NO_OWNER);
    any = true;
  }
  return any && set->pool->os->barrier();
}

static void readmit_all_locked(struct hak_heap_set *set) HAK_REQUIRES(set->visit_lock) {
  for (struct hak_heap *heap = set->newest_attached; heap != NULL; heap = heap->older) {
    if (is_visited(heap)) readmit(heap);
  }
}

// Decay and trim

// How often a thread yields in vain.
#define MAX_YIELDS 100

bool hak_heap_set_tick(struct hak_heap_set *set, const struct hak_cache *cache) {
  if (hak_lock_all_held) return false;  // all are kept out, for a fork
  const struct hak_retain *retain = &set->pool->retain;
  uint64_t now = retain->os->now_ms();
  uint64_t interval_ms = hak_retain_look_interval_ms(retain);
  uint64_t ticked = hak_load_relaxed(&set->ticked_ms);
  if (now - ticked < interval_ms || !hak_cas_relaxed(&set->ticked_ms, &ticked, now)) return false;
  size_t n_looks = HAK_DECAY_LOOKS;
  hak_threadless_decay(set, now, &n_looks);
  hak_lock(&set->visit_lock);
  bool can_visit = n_looks != 0 && keep_out_locked(set, cache, now - interval_ms);
  struct hak_heap *older;
  for (struct hak_heap *heap = set->newest_attached; heap != NULL; heap = older) {
    older = heap->older;
    if (!is_visited(heap)) continue;
    if (can_visit && n_looks != 0 && is_outside(heap)) (void)hak_heap_decay(heap, now, &n_looks);
    readmit(heap);
    give_up_if_lost(heap);
  }
  hak_unlock(&set->visit_lock);
  bool unfinished = n_looks == 0;
  if (unfinished) hak_store_relaxed(&set->ticked_ms, hak_decay_again_ms(retain, now));
  return unfinished;
}

// Between two visits those who wait for the lock come in, which it does not see to by itself.
static void let_others_in(const struct hak_heap_set *set) {
  for (unsigned i = 0; i < MAX_YIELDS && hak_load_relaxed(&set->n_waiting) != 0; ++i) sched_yield();
}

// Returns what is unused in the next heap, as far as *n_looks go. Whether there is no more.
static bool trim_next(struct hak_heap_set *set, const struct hak_cache *cache, size_t *n_looks, size_t *returned) {
  size_t n_given = *n_looks;
  bool done = true;
  hak_lock(&set->visit_lock);
  struct hak_heap *heap = set->next_visited != NULL ? set->next_visited : set->newest_attached;
  bool is_others = heap != NULL && !is_own(heap, cache);
  if (is_others) {
    hak_store_relaxed(&heap->seat.owner_id, HAK_NO_OWNER);
    if (set->pool->os->barrier() && is_outside(heap)) {
      hak_outbox_flush(&heap->seat);
      done = hak_mail_drain(heap, HAK_DRAIN_SOME);
      *returned += hak_heap_release_unused(heap, n_looks);
    }
    readmit(heap);
  }
  if (n_given != 0 && *n_looks == 0) done = false;
  set->next_visited = heap == NULL || !done ? heap : heap->older;
  if (is_others) give_up_if_lost(heap);
  hak_unlock(&set->visit_lock);
  return done;
}

size_t hak_heap_set_trim(struct hak_heap_set *set, const struct hak_cache *cache) {
  if (hak_lock_all_held) return 0;
  size_t returned = 0;
  // Other visitors go on from the same place, so that each heap is visited by one of them. No more looks than there are
  // slabs, whatever their owners do meanwhile.
  size_t n_heaps = hak_load_relaxed(&set->n_attached);
  size_t n_slabs = hak_load_relaxed(&set->pool->n_slabs_used);
  while (n_heaps != 0) {
    size_t n_looks = hak_min(n_slabs, HAK_DECAY_LOOKS);
    n_slabs -= n_looks;
    if (trim_next(set, cache, &n_looks, &returned)) --n_heaps;
    n_slabs += n_looks;
    let_others_in(set);
  }
  return returned + hak_threadless_trim(set);
}

// Fork

#define SLEEP_NS 50000

static void wait_until_outside(struct hak_heap *heap) {
  for (unsigned i = 0; !is_outside(heap); ++i) {
    // To yield does not help who has a lower priority, or another processor.
    if (i < MAX_YIELDS) {
      sched_yield();
    } else if (hak_life_is_over(heap->life)) {
      hak_heap_forget(heap);
      return;
    } else {
      hak_sleep_ns(SLEEP_NS);
    }
  }
}

void hak_heap_set_before_fork(struct hak_heap_set *set, const struct hak_cache *cache) {
  hak_lock(&set->visit_lock);
  set->all_visited = keep_out_locked(set, cache, UINT64_MAX);
  // Who is inside comes out: it needs no lock that is held here.
  struct hak_heap *older;
  for (struct hak_heap *heap = set->newest_attached; set->all_visited && heap != NULL; heap = older) {
    older = heap->older;
    if (!is_own(heap, cache)) wait_until_outside(heap);
  }
  hak_lock(&set->lock);
}

void hak_heap_set_after_fork_in_parent(struct hak_heap_set *set) {
  hak_unlock(&set->lock);
  readmit_all_locked(set);
  hak_unlock(&set->visit_lock);
}

// Whether the cache of a thread that does not exist in this process is still there. Of one that had ended before, its
// memory may be gone, or be something else.
static bool has_cache(const struct hak_heap *heap) {
  return hak_is_readable(heap->cache, sizeof *heap->cache) && heap->cache->heap == heap;
}

void hak_heap_set_orphan_all(struct hak_heap_set *set, const struct hak_cache *cache,
                             void (*orphaned)(struct hak_cache *cache)) {
  struct hak_heap *older;
  for (struct hak_heap *heap = set->newest_attached; heap != NULL; heap = older) {
    older = heap->older;
    struct hak_cache *left = heap->cache;
    if (is_own(heap, cache)) continue;
    if (!set->all_visited) {
      // It may have been caught anywhere: its blocks can be freed, and that is all.
      hak_heap_forget(heap);
    } else if (has_cache(heap)) {
      hak_heap_abandon(left);
      orphaned(left);
    } else {
      hak_heap_abandon_lost(heap);
    }
  }
}

void hak_heap_after_fork_in_child(struct hak_cache *cache) {
  if (cache->heap != NULL) cache->heap->life = hak_life_own();
}

void hak_heap_set_after_fork_in_child(struct hak_heap_set *set) {
  hak_unlock(&set->lock);
  hak_unlock(&set->visit_lock);
}

// Heaps: who owns which slab, and how blocks freed by other threads find their way home.
//
// A heap owns slabs, and a thread owns at most one heap, through its cache. All heaps of a process belong to a heap
// set. When a thread ends, its heap becomes an orphan that the next new thread adopts as it is, lists included: blocks
// that outlived the thread become local to its successor, and thread churn costs two short critical sections. An orphan
// that is not adopted within the decay time, or after a moment if its memory is needed or the process keeps too much
// (superslab/retain.h), is dissolved: its slabs with free blocks move to the set's public heap, which no thread owns
// and from which every thread takes before it asks the pool for a fresh slab; what is left of it, a husk, owns the
// slabs without free blocks until it is adopted in its turn.
//
// A block freed by a thread that does not own its slab goes, gathered with others of the same slab in the thread's
// outbox, onto the slab's remote list with one compare-and-swap; the first publication also mails the slab to its
// owner, so that the owner never searches. See docs/concurrency.md for the protocol.
#ifndef HAKMEM_HEAP_HEAP_H_
#define HAKMEM_HEAP_HEAP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/cache.h"
#include "heap/slab.h"
#include "platform/life.h"
#include "platform/lock.h"
#include "superslab/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

// The slabs of one kind that a heap owns.
struct hak_bin {
  union {
    struct hak_slab *current;
    struct hak_slab *slabs[HAK_SLAB_STATES];  // by state; doubly linked, the slab that came last first
  };
  struct hak_slab *next_asleep;  // ASLEEP, or NULL: where the next search for a free block begins
  uint32_t n_counted;            // SPARSE slabs that are counted (slab.h)
  uint32_t n_fresh;              // slabs taken from the pool since the last trim: how hot the kind is
  uint32_t n_borrowed;           // blocks of a larger kind that were taken instead
};

// Empty runs that a heap keeps for its next refills: so many slabs in all, and so many runs.
#define HAK_HEAP_SPARE_SLABS 8
#define HAK_HEAP_SPARES (HAK_HEAP_SPARE_SLABS >> (HAK_RUN_SHIFT_MIN - HAK_SLAB_SHIFT))

// How long an orphan is left to be adopted though a thread needs a slab and might find one in it, or the process keeps
// too much: a program whose threads are short starts the next one soon, and a heap that was dissolved has to be filled
// anew.
#define HAK_HEAP_ORPHAN_GRACE_MS 10

// So many slabs one tick looks at, of all heaps together: some milliseconds, for which others may have to wait. The
// next one, so much later, goes on.
#define HAK_DECAY_LOOKS 32
#define HAK_DECAY_REST_MS 10

struct hak_heap {
  struct hak_bin bin[HAK_KINDS];
  struct hak_heap_set *set;
  struct hak_at_hand at_hand;  // the cache's, while it waits for adoption
  // With a thread: its cache, which only the thread itself looks into, and the set's list of such heaps; visit lock.
  // Without: NULL, and the list of orphans or of husks; set's lock.
  struct hak_cache *cache;
  struct hak_heap *older, *newer;
  uint64_t orphaned_ms;
  size_t orphan_bytes;                  // of an orphan: the pages of its current slabs, which count as unused
  struct hak_slab_remote *opened_mail;  // taken out of `mail`, and not collected yet
  size_t counted_bytes;                 // the heap's part of the unused memory of the process (slab.h, counted)
  size_t returned_bytes;                // given back since the last look for kinds that are not in use any more
  size_t taken_bytes;                   // of fresh pages that were carved, since the last look of any reason
  uint32_t id;
  uint32_t n_spares;
  uint32_t least_spares;             // since decayed_ms
  bool takes_no_runs;                // only what it has is asked for
  uint64_t decayed_ms;               // atomic; by the owner or a visitor
  uint64_t ticked_ms;                // by the owner
  uintptr_t spare[HAK_HEAP_SPARES];  // a run's base, and in its low bits its slabs; the oldest first
  struct hak_life life;              // its thread's; visit lock
  struct hak_seat seat __attribute__((aligned(64)));
  // What other threads write, on a cache line of its own.
  struct hak_slab_remote *mail __attribute__((aligned(64)));  // atomic; slabs with remotely freed blocks
  uint32_t orphan;  // atomic; no thread owns this heap. Written under the set's lock
};

// Lock ranks: visit_lock, lock, the pool's. A thread that works on its heap (seat.inside) may take all but the first.
struct hak_heap_set {
  struct hak_pool *pool;
  uint32_t refill_count;  // blocks per refill of a class that has taken two runs
  bool diet;              // give memory back at once
  struct hak_mutex visit_lock;
  struct hak_heap *newest_attached;  // heaps with a thread; visit_lock
  struct hak_heap *next_visited;     // of these, where hak_heap_set_trim goes on; NULL: the newest; visit_lock
  uint32_t n_attached;               // atomic; written under visit_lock
  uint32_t n_waiting;                // atomic; threads that wait for a visitor
  uint32_t n_waits;                  // atomic; how often one has
  uint64_t ticked_ms;                // atomic
  bool all_visited;                  // by the thread that forks; visit_lock
  struct hak_mutex lock;
  struct hak_heap *newest_orphan, *oldest_orphan;  // the newest atomic; written under the lock
  struct hak_heap *husks;
  uint32_t n_heaps;
  uint32_t n_threadless;         // atomic; written under the lock; orphans, husks and the public heap
  uint32_t n_mailed;             // atomic; slabs that were mailed to those since their mail was collected, about
  struct hak_heap *public_heap;  // made with the first heap
  // Bit k: the public heap may have a slab of kind k with free blocks. Atomic, relaxed: a hint that saves the lock.
  uint64_t public_kinds[HAK_KINDS / 64];
};

#define HAK_REFILL_COUNT_DEFAULT 64
#define HAK_REFILL_COUNT_MIN 1
#define HAK_REFILL_COUNT_MAX 4096

// Prepares an empty set over `pool`, which must outlive it. refill_count: HAK_REFILL_COUNT_MIN to _MAX.
void hak_heap_set_init(struct hak_heap_set *set, struct hak_pool *pool, uint32_t refill_count, bool diet);

// Gives the cache a heap: an orphan if there is one, else a new one. False when memory has run out. Only the thread
// that owns the cache may call this and everything below. The cache stays where it is until it is detached. Cost: the
// set's locks.
bool hak_heap_attach(struct hak_heap_set *set, struct hak_cache *cache);

// Takes the heap away, at the thread's end, to wait for its next owner. The cache is empty then and can be attached
// again. Cost: the set's locks, and a compare-and-swap for each slab in the outbox.
void hak_heap_detach(struct hak_cache *cache);

// The kind to take a block of instead of `kind`: as a rule itself. On a diet it is `shared_kind` for the first
// `max_blocks` blocks that are asked for while `kind` has no current slab: in a small program many kinds have a block
// or two, and each of their slabs would hold a page. A call counts as a block. The cache has a heap.
size_t hak_heap_lender(struct hak_cache *cache, size_t kind, size_t shared_kind, uint32_t max_blocks);

// Fills the cache's list of geometry->kind, of Mid its recent blocks, of which there are none. The cache has a heap.
// False when memory has run out. Cost: mostly what it carves, 16 KiB of fresh memory at most; where the current slab
// has nothing more, mail, and for another slab at times the set's and the pool's locks.
bool hak_heap_refill(struct hak_cache *cache, const struct hak_class *geometry);

// What `take_of_kind` finds for the first of the kinds from `first` to `last` for which it finds a block without a run
// that the heap does not have yet. NULL if there is none. The cache has a heap. Cost: a refill for each kind.
void *hak_heap_take_any(struct hak_cache *cache, size_t first, size_t last,
                        void *(*take_of_kind)(struct hak_cache *cache, size_t kind));

// Frees block `p` of a Tiny or Mid kind: of a local slab, or of another heap. The cache may be without a heap: the
// block is then published at once. Misuse stops the program with a message that names `function`. Cost: no lock, but
// the pool's when a slab goes back, and the set's after much mail to heaps without a thread.
void hak_heap_free(struct hak_cache *cache, void *p, const char *function);

// Publishes all blocks that wait in the outbox. The cache has a heap.
void hak_heap_flush(struct hak_cache *cache);

// Collects mail, and returns what is wholly free to the pool, and the pages in which no block is in use to the
// operating system. The number of bytes that the latter are.
size_t hak_heap_trim(struct hak_cache *cache);

// Returns what has stayed unused in the heap for the decay time: pages to the operating system, spare slabs to the
// pool; recent blocks go to their slabs, and kinds that are not in use any more lose their current one. Called on slow
// paths; does nothing when called again within half of that time, or 50 ms if that is more, unless there was too much
// for one call. Cost: a walk over the slabs with free blocks, of which it looks at HAK_DECAY_LOOKS at most.
void hak_heap_tick(struct hak_cache *cache);

// The same, but for the caches, for all heaps whose threads have not done it themselves for half of the decay time (50
// ms at least), and those without a thread. `cache` is the calling thread's, or NULL. Does nothing when called again
// within that time, unless there was too much for one call; whether there was. Cost: the set's locks, a system call if
// there are other threads.
bool hak_heap_set_tick(struct hak_heap_set *set, const struct hak_cache *cache);

// Does what hak_heap_trim does, but for what threads have at hand, for all other heaps, one after the other; `cache` is
// the calling thread's, or NULL. A heap whose thread is just then at work on it is left out. Other threads wait some
// milliseconds at most, while their own heap is visited. Cost: what is returned, and a system call for each heap.
size_t hak_heap_set_trim(struct hak_heap_set *set, const struct hak_cache *cache);

// For fork. Before: waits until no thread but the calling one is at work on its heap, and takes the set's locks. After:
// gives them back.
void hak_heap_set_before_fork(struct hak_heap_set *set, const struct hak_cache *cache)
    HAK_ACQUIRES(set->visit_lock, set->lock);
void hak_heap_set_after_fork_in_parent(struct hak_heap_set *set) HAK_RELEASES(set->visit_lock, set->lock);
void hak_heap_set_after_fork_in_child(struct hak_heap_set *set) HAK_RELEASES(set->visit_lock, set->lock);

// In the child, where the thread that forked is another one for the kernel.
void hak_heap_after_fork_in_child(struct hak_cache *cache);

// In the child, with all locks: makes orphans of the heaps of all other threads. `orphaned` is called with the cache of
// each, as the thread that does not exist any more left it; not of one that had ended without detaching, whose cache is
// gone.
void hak_heap_set_orphan_all(struct hak_heap_set *set, const struct hak_cache *cache,
                             void (*orphaned)(struct hak_cache *cache)) HAK_REQUIRES(set->visit_lock, set->lock);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HEAP_HEAP_H_

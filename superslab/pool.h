// The pool of SuperSlabs: where every tier gets runs of slabs and gives them back.
//
// When no SuperSlab has room, the pool maps another one; there is no fixed maximum. A slab that was given back keeps
// its pages for a while, since to fault them in again costs more than anything else an allocator does; when it was not
// taken again within the decay time its pages return to the operating system, and a SuperSlab that is wholly free
// leaves the process.
#ifndef HAKMEM_SUPERSLAB_POOL_H_
#define HAKMEM_SUPERSLAB_POOL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/lock.h"
#include "platform/os.h"
#include "superslab/layout.h"
#include "superslab/retain.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hak_superslab;

#define HAK_POOL_PURGE_DELAY_MS 1000

// HAKMEM_THP: where transparent huge pages are used.
enum hak_thp {
  HAK_THP_AUTO,    // for slabs of a kind that grows quickly, in a process that uses 16 MiB, while they take at most
                   // twice the time of pages one by one; else as the system, but see hak_demand
  HAK_THP_NEVER,   // nowhere, even if the system uses them everywhere
  HAK_THP_ALWAYS,  // everywhere, from the first SuperSlab on
};

// What who asks for a run expects to use, which says how the pool grows for it.
enum hak_demand {
  HAK_DEMAND_LITTLE,  // perhaps little of the run: by a SuperSlab that refuses huge pages
  HAK_DEMAND_WHOLE,   // all of it: by one that has them where the system gives them to everybody
  HAK_DEMAND_MANY,    // and many more runs: by two of these, and each gets all of its pages when the first run of it is
                      // taken, unless an eighth of what the process has is unused with it
};

// A process that uses less of Tiny, Mid and ACE refuses huge pages, whatever is asked for.
#define HAK_POOL_SMALL_BYTES ((size_t)8 * 1024 * 1024)

// The fields belong to pool.c. Lock rank: under it no lock but the registry's is taken.
struct hak_pool {
  const struct hak_os *os;
  struct hak_mutex lock;
  // SuperSlabs by their number of free slabs, 1 to 32; bit n of with_free says that by_free[n] is not empty.
  uint64_t with_free;
  struct hak_superslab *by_free[HAK_SUPERSLAB_SLABS + 1];
  // SuperSlabs that have something to give back, free slabs that may hold pages or all of their address space, by when
  // a slab of them was last taken or freed.
  struct hak_superslab *oldest_unused, *youngest_unused;
  uintptr_t last_mapped;  // where the next SuperSlab would be a neighbour, from below
  uint32_t thp;           // atomic, relaxed: enum hak_thp; may change at any time
  bool cannot_populate;   // atomic, relaxed: the operating system has refused to once
  // The thread's time that it took to populate a SuperSlab, with pages one by one [0] and with a huge page [1]: the
  // last time, and in all since the other was last used. Atomic, relaxed: hints.
  uint64_t populate_ns[2], since_ns[2];
  struct hak_retain retain;
  char *meta_next, *meta_end;
  // Statistics, readable without the lock: atomic, relaxed.
  size_t n_superslabs;
  size_t n_slabs_used;
};

// Prepares an empty pool over `os`; nothing is mapped until the first run is asked for. Several pools may exist.
void hak_pool_init(struct hak_pool *pool, const struct hak_os *os);

// Gives all wholly free SuperSlabs back, forgets the rest. For tests: what is still in use must not be used again.
void hak_pool_destroy(struct hak_pool *pool);

// A run of `n_slabs` contiguous slabs (1, 2, 4, 8, 16 or 32), aligned to its own size. Its address, or 0 when
// the operating system refuses. *zeroed (may be NULL) tells if all of it is known to be zero; else all of it counts as
// held. The caller sets the registry's entries, and unpoisons (base/poison.h) what it hands out, until it has it back.
// Any thread. Cost: the pool's lock; system calls once per SuperSlab.
uintptr_t hak_pool_acquire(struct hak_pool *pool, size_t n_slabs, enum hak_demand demand, bool *zeroed);

// Makes the run at `base`, of which nothing is in use and `dirty_bytes` may hold pages and are counted as held
// (limit.h), count as a whole: that is all that spares and the pool know of a run. Where the limit does not allow for
// it, the pages go back instead. Whether it may hold pages then; false if `dirty_bytes` is 0. Any thread. Cost: an
// atomic operation.
bool hak_pool_count_whole(struct hak_pool *pool, uintptr_t base, size_t n_slabs, size_t dirty_bytes);

// Takes back the run at `base`; the caller has cleared the registry's entries. `dirty` says whether it may hold pages:
// then all of it is counted as held. Any thread. What the process keeps beyond its limit (retain.h) goes back to the
// operating system. Cost: the pool's lock, and system calls under it for what goes back.
void hak_pool_release(struct hak_pool *pool, uintptr_t base, size_t n_slabs, bool dirty);

// Takes `count` SuperSlabs at `base` that are mapped, zero and in nobody's hands. False, and nothing has changed, when
// the registry has no memory. Any thread. Cost: the pool's lock.
bool hak_pool_adopt(struct hak_pool *pool, uintptr_t base, size_t count);

// Returns the pages that were free for longer than the decay time, of 4 SuperSlabs at most. Any thread; called on slow
// paths. Cost: the pool's lock, and system calls under it where something is due.
void hak_pool_tick(struct hak_pool *pool);

// Returns the pages of all free slabs and all wholly free SuperSlabs to the operating system, but for at most
// `keep_bytes`, of a SuperSlab all or none; the number of bytes returned, as far as known (pages that were never
// touched count).
size_t hak_pool_trim(struct hak_pool *pool, size_t keep_bytes);

// Zeroed metadata memory of `bytes` bytes, aligned to 64, that lives as long as the pool. NULL when the operating
// system refuses. Any thread.
void *hak_pool_meta_alloc(struct hak_pool *pool, size_t bytes);

// For fork: the lock is taken before, and given back on both sides after.
void hak_pool_lock(struct hak_pool *pool) HAK_ACQUIRES(pool->lock);
void hak_pool_unlock(struct hak_pool *pool) HAK_RELEASES(pool->lock);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_SUPERSLAB_POOL_H_

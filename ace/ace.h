// ACE, the Adaptive Cache Engine: requests over 32 KiB and below 2 MiB.
//
// Blocks are page-granular extents out of SuperSlabs. A few arenas, each with a lock of its own, own the SuperSlabs; in
// front of them every thread has a cache of freed extents, whose depth per size class follows the demand. README.md
// walks through one malloc and one free.
#ifndef HAKMEM_ACE_ACE_H_
#define HAKMEM_ACE_ACE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ace/ace_class.h"
#include "base/compiler.h"
#include "platform/lock.h"
#include "superslab/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

// The largest request in bytes: a whole SuperSlab. Requests of 32 KiB and less are served too, out of the smallest
// class.
#define HAK_ACE_MAX_BYTES ((size_t)2 * 1024 * 1024)
// The largest alignment in bytes.
#define HAK_ACE_MAX_ALIGNMENT ((size_t)1024 * 1024)

#define HAK_ACE_ARENAS 8
#define HAK_ACE_CACHE_DEPTH 8

struct hak_ace_superslab;
struct hak_ace_stacks;

// The fields belong to ace_arena.c. Lock rank: outside the pool's; a thread holds one arena's lock at a time, but for
// hak_ace_lock, which takes all of them in the order of the array.
struct hak_ace_arena {
  struct hak_mutex lock;
  // SuperSlabs by the class of their longest free run; bit n of with_run says that by_run[n] is not empty.
  uint64_t with_run;
  struct hak_ace_superslab *by_run[HAK_ACE_CLASSES];
  // SuperSlabs with free pages that may be backed, the longest unused first (dirty_first: atomic, relaxed).
  struct hak_ace_superslab *dirty_first, *dirty_last;
  // Wholly free SuperSlabs that are kept for the next request.
  size_t n_empty;
  // Stacks that no cache uses.
  struct hak_ace_stacks *stacks_free;
  size_t n_superslabs;  // atomic, relaxed: read by the threads of the arena
  size_t n_threads;     // atomic, relaxed: caches bound to this arena
} __attribute__((aligned(64)));

// The tier's state. The fields belong to ace/; the owner provides the memory.
struct hak_ace {
  struct hak_pool *pool;
  bool diet;
  struct hak_ace_arena arenas[HAK_ACE_ARENAS];
};

// An extent in a cache, and its word (ace_inline.h).
struct hak_ace_cached {
  void *extent;
  uint32_t *word;
};

#define HAK_ACE_STACK_BYTES (HAK_ACE_CACHE_DEPTH * sizeof(struct hak_ace_cached))  // a power of two

// The stacks of a cache, one for each class and aligned to its size, so that `top` itself says when one is empty:
//
//      slots[class]            top               end             slots[class + 1]
//      v                       v                 v               v
//      +-------+-------+-------+-------+-------+-------+-------+-------+
//      | oldest|       | newest|       |       |     beyond the limit  |
//      +-------+-------+-------+-------+-------+-------+-------+-------+
struct hak_ace_stacks {
  struct hak_ace_cached slots[HAK_ACE_CLASSES][HAK_ACE_CACHE_DEPTH];
} __attribute__((aligned(HAK_ACE_STACK_BYTES)));

// One thread's cache, used by that thread alone. All zero is a valid empty cache. The fields belong to ace.c.
struct hak_ace_cache {
  // NULL before the first slow path, as are the pointers below. First, so that an index is all of an address.
  struct hak_ace_cached *top[HAK_ACE_CLASSES];
  uint64_t nonempty;  // bit per class: top is not at the start
  uint32_t room;      // budget minus the weights of the extents that are cached (ace_inline.h)
  uint32_t budget;    // 0 before the first slow path
  struct hak_ace_stacks *stacks;
  struct hak_ace_arena *arena;  // where misses are served
  uint64_t emptied;             // bit per class: the stack became empty since the last decay
  uint64_t overflowed;          // bit per class: an extent left because the stack was at its limit
  uint64_t evicted;             // bit per class: an extent left because the whole cache was at its budget
  uint64_t decayed_ms;
  uint32_t n_misses;
  uint32_t next_victim;
  struct hak_ace_cached *end[HAK_ACE_CLASSES];
};

// Prepares the tier over `pool`; nothing is taken from it until the first request. With `diet`, nothing is cached and
// freed pages return to the operating system at once. Not thread-safe, the rest is.
void hak_ace_init(struct hak_ace *ace, struct hak_pool *pool, bool diet);

// Gives what is free back to the pool and forgets the rest. For tests; the caches were flushed before.
void hak_ace_destroy(struct hak_ace *ace);

// Returns a block of at least `size` bytes (0 counts as 1, at most HAK_ACE_MAX_BYTES) at a multiple of `alignment`, a
// power of two up to HAK_ACE_MAX_ALIGNMENT; every block is aligned to 4 KiB. *zeroed (may be NULL) tells if all of it
// is known to be zero. `cache` is the calling thread's, or NULL to go without. NULL when the pool has no memory,
// HAKMEM_LIMIT refuses or the request is out of range; errno is not touched. Cost: about 30 instructions when the cache
// has a block, else the arena's lock, and once per SuperSlab the pool's.
void *hak_ace_malloc(struct hak_ace *ace, struct hak_ace_cache *cache, size_t size, size_t alignment, bool *zeroed);

// Takes back the block at `p`, whose registry entry has the kind HAK_KIND_ACE, from any thread. A pointer that is not
// the start of a live block stops the program as hak_ace_misuse does. `cache` as above. Cost: about 30 instructions
// when the cache has room, else an arena's lock.
void hak_ace_free(struct hak_ace *ace, struct hak_ace_cache *cache, void *p);

// The bytes of the block at `p` that may be used; 0 if `p`, whose registry entry has the kind HAK_KIND_ACE, is not the
// start of a live block. Any thread, no locks.
size_t hak_ace_usable_size(const void *p);

// Makes the block at `p` at least `size` bytes long (0 counts as 1) where it is: a shorter one gives its tail back (but
// none becomes shorter than the smallest class, and without a diet one that is two classes too large at most stays), a
// longer one takes the free pages that follow. Any thread. False, and nothing has changed, when that is impossible or
// HAKMEM_LIMIT refuses. Cost: the lock of the block's arena; without a diet none for a block that stays as it is.
bool hak_ace_resize(struct hak_ace *ace, void *p, size_t size);

// Says on stderr what is wrong with `p`, which `function` ("free", "realloc") was given and which is not the start of a
// live block but lies in a SuperSlab of this tier: "double free" or "pointer is not the start of a block"; aborts.
HAK_COLD HAK_NORETURN void hak_ace_misuse(struct hak_ace *ace, const char *function, const void *p);

// Gives all cached extents back to their arenas and leaves the cache as if all zero. At thread exit, and before a trim.
// Cost: an arena's lock for some extents each, and system calls for what goes back.
void hak_ace_cache_flush(struct hak_ace *ace, struct hak_ace_cache *cache);

// Lets unused extents of `cache` (may be NULL) go, and returns the pages of all arenas that were free for longer than
// the pool's decay time. Called on slow paths; ACE's own slow paths do as much for one arena. Cost: the arenas' locks.
void hak_ace_tick(struct hak_ace *ace, struct hak_ace_cache *cache);

// Returns the free pages of all arenas to the operating system, wholly free SuperSlabs to the pool, but for at most
// `keep_bytes`, of a SuperSlab all or none. The number of bytes that went to the operating system, as far as known
// (pages never touched may count).
size_t hak_ace_trim(struct hak_ace *ace, size_t keep_bytes);

struct hak_ace_stats {
  size_t superslab_bytes;  // address space of the tier's SuperSlabs
  size_t free_bytes;       // of these, in pages that neither a block nor a cached extent takes
};

// What the tier holds. Free runs too short for any block are not counted as free where a SuperSlab has no others.
// Called with hak_ace_lock. Cost: a walk over the SuperSlabs that have room.
struct hak_ace_stats hak_ace_stats_locked(const struct hak_ace *ace) HAK_LOCKS_UNCHECKED;

// For fork: all locks of the tier are taken before, and given back on both sides after; the pool's lock is taken later
// and given back earlier. Unchecked, and so is what needs them: the arenas are an array.
void hak_ace_lock(struct hak_ace *ace) HAK_LOCKS_UNCHECKED;
void hak_ace_unlock(struct hak_ace *ace) HAK_LOCKS_UNCHECKED;

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ACE_ACE_H_

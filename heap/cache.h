// A thread's cache of free blocks, and the few instructions of the hot path that use it.
//
// The cache has one list per kind. It holds free blocks of the kind's current slab and no others, so that what is
// allocated together stays together: a block that is freed goes to the thread's list if it lies in the current slab,
// and to its own slab otherwise (docs/decisions/0002-where-freed-blocks-go.md). Of Mid, the last few of the others wait
// here too, since what was just freed is in the processor's caches, and to keep it saves changes of slabs.
#ifndef HAKMEM_HEAP_CACHE_H_
#define HAKMEM_HEAP_CACHE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/poison.h"
#include "heap/link.h"
#include "heap/slab.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hak_heap;

#define HAK_OUTBOX_SLOTS 64
// Every so many remote frees the next slot in turn is published, however little it holds.
#define HAK_OUTBOX_AGE 16

// Blocks of one slab of another heap, gathered before they are published together.
struct hak_outbox_slot {
  uintptr_t base;  // of the slab; 0: nothing gathered
  uintptr_t head;  // last block gathered
  uintptr_t tail;  // first block gathered
  uint32_t count;
  uint32_t limit;  // the count at which the slot is published
};

// So many blocks of a kind may be recent.
#define HAK_RECENT_MAX 8

// What no registry entry holds as its owner.
#define HAK_NO_OWNER UINT32_MAX

struct hak_cache {
  // By kind: the head of the list. Low 16 bits zero: empty. See slab.h.
  uintptr_t list[HAK_KINDS];
  // The heap whose slabs this thread owns, NULL before the first slow path and after the thread's end.
  struct hak_heap *heap;
  // What visit.c is about: whether the thread works on its heap, and whether it may: the heap's id, or HAK_NO_OWNER
  // while there is no heap or another thread visits it. Atomic.
  uint32_t inside;
  uint32_t owner_id;
  uint32_t outbox_clock;
  uint64_t outbox_used;  // bit per slot: something may be gathered there
  struct hak_outbox_slot outbox[HAK_OUTBOX_SLOTS];
  // By kind of Mid: the blocks of this heap that were freed last and do not lie in the current slab, which for their
  // slabs are in use. The newest, which holds the address of the next, or 0; and how many, or HAK_RECENT_MAX if there
  // are to be none.
  uintptr_t recent[HAK_MID_KINDS];
  uint8_t n_recent[HAK_MID_KINDS];
};

// Kind 0 is both "size 0" for malloc and "not ours" for free. Its list is empty, and no pointer is near its head, so
// that both take the slow path. No address, and no value that a program might mistake for one either.
#define HAK_CACHE_NO_BLOCK ((uintptr_t)0xa6d1e3978c5b0000)
#define HAK_CACHE_INIT                                                            \
  {                                                                               \
    {HAK_CACHE_NO_BLOCK}, 0, 0, HAK_NO_OWNER, 0, 0, {{0, 0, 0, 0, 0}}, {0}, { 0 } \
  }

// Where blocks of the slab at `base` are gathered.
static HAK_ALWAYS_INLINE struct hak_outbox_slot *hak_outbox_slot_of(struct hak_cache *cache, uintptr_t base) {
  return &cache->outbox[(base >> HAK_SLAB_SHIFT ^ base >> 20) % HAK_OUTBOX_SLOTS];
}

// Whether the next remote free publishes one of the other slots.
static HAK_ALWAYS_INLINE bool hak_outbox_is_due(const struct hak_cache *cache) {
  return (cache->outbox_clock + 1) % HAK_OUTBOX_AGE == 0;
}

#define HAK_SLAB_OFFSET_MASK (HAK_SLAB_BYTES - 1)
#define HAK_BLOCK_ALIGNMENT ((uintptr_t)16)

// Where poison is: `block`, of `kind`, becomes free.
static HAK_ALWAYS_INLINE void hak_block_poison(uintptr_t block, size_t kind) {
  if (HAK_POISON) hak_poison((void *)block, hak_slab_at(hak_kind_run_base(kind, block))->block_bytes);
}

// The same for a block that is handed out.
static HAK_ALWAYS_INLINE void hak_block_unpoison(uintptr_t block, size_t kind) {
  if (HAK_POISON) hak_unpoison((void *)block, hak_slab_at(hak_kind_run_base(kind, block))->block_bytes);
}

// Takes a block of `kind`, or NULL if the list is empty.
static HAK_ALWAYS_INLINE void *hak_cache_pop(struct hak_cache *cache, size_t kind) {
  uintptr_t head = cache->list[kind];
  if (HAK_UNLIKELY((head & HAK_SLAB_OFFSET_MASK) == 0)) return NULL;
  cache->list[kind] = hak_link_get(head);
  hak_block_unpoison(head, kind);
  return (void *)head;
}

// The same for a kind of Mid: the block that was freed last, if it is recent.
static HAK_ALWAYS_INLINE void *hak_cache_pop_recent(struct hak_cache *cache, size_t kind) {
  uintptr_t newest = cache->recent[kind - HAK_KIND_MID_FIRST];
  if (newest == 0) return hak_cache_pop(cache, kind);
  HAK_HIDE(kind);  // so that the other way saves the address for nothing
  size_t index = kind - HAK_KIND_MID_FIRST;
  cache->recent[index] = hak_link_get(newest);
  --cache->n_recent[index];
  hak_block_unpoison(newest, kind);
  return (void *)newest;
}

// Frees `p` if it lies in the same 64 KiB as the head of its kind's list; false if it does not, or if it is no block at
// all. `p` may have any value: one that is foreign, unaligned or was freed just before fails here and is sorted out by
// the caller, for whom *kind, *distance (from the head, as an XOR) and *index (in the registry) are what was found out
// so far: *kind is HAK_KINDS, which is none, if it was freed just before; else *distance is not 0.
static HAK_ALWAYS_INLINE bool hak_cache_push(struct hak_cache *cache, void *p, size_t *kind, uintptr_t *distance,
                                             uint64_t *index) {
  *kind = hak_registry_look_up(p, index);
  uintptr_t head = cache->list[*kind];
  if (HAK_UNLIKELY(hak_xor_is_zero((uintptr_t)p, head, distance))) {
    *kind = HAK_KINDS;
    return false;
  }
  if (HAK_UNLIKELY((*distance & ~(HAK_SLAB_OFFSET_MASK - (HAK_BLOCK_ALIGNMENT - 1))) != 0)) return false;
  hak_block_poison((uintptr_t)p, *kind);
  hak_link_set((uintptr_t)p, head);
  HAK_COMPILER_BARRIER();  // a fork may catch this thread anywhere, and the child walks over its lists
  cache->list[*kind] = (uintptr_t)p;
  return true;
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HEAP_CACHE_H_

// A thread's cache of free blocks, and the few instructions of the hot path that use it.
//
// Of Tiny the cache has one list per kind. It holds free blocks of the kind's current slab and no others, so that what
// is allocated together stays together: a block that is freed goes to the thread's list if it lies in the current slab,
// and to its own slab otherwise (docs/decisions/0002-where-freed-blocks-go.md). Of Mid it has recent blocks instead,
// whichever slabs they lie in: a slab of Mid has so few blocks that to ask whether one lies in the current slab is to
// toss a coin, and a processor that foretells the answer loses.
#ifndef HAKMEM_HEAP_CACHE_H_
#define HAKMEM_HEAP_CACHE_H_

#include <assert.h>
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

// So many blocks of a kind may become recent at first, and at most; and so much memory of all kinds beyond those first.
#define HAK_RECENT_MIN 12
#define HAK_RECENT_MAX 127
#define HAK_RECENT_BYTES ((size_t)1024 * 1024)

// What no registry entry holds as its owner.
#define HAK_NO_OWNER UINT32_MAX

// The free blocks that a thread has at hand, by kind. They stay with the heap when the thread ends.
struct hak_at_hand {
  // The head of the list. Low 18 bits zero: empty. See slab.h. Mid's are always so.
  uintptr_t list[HAK_KINDS];
  // The registry entry of this heap's blocks of a kind of Mid, while they may become recent; else one that no block of
  // the kind has.
  uint32_t recent_entry[HAK_KINDS];
  // Of Mid: the newest recent block, which holds the address of the next, as in a list. For their slabs these are in
  // use.
  uintptr_t recent[HAK_MID_KINDS];
  // How many more may be added. One that is handed out makes room, also of those that a refill has brought.
  int16_t recent_room[HAK_MID_KINDS];
  uint8_t recent_max[HAK_MID_KINDS];  // how many may be added after a refill; 0: the next one says
  bool recent_full[HAK_MID_KINDS];    // there was no room for one since the last refill
  size_t recent_bytes;                // of all recent_max together, beyond HAK_RECENT_MIN each
};

static_assert(offsetof(struct hak_at_hand, list) == 0, "hak_cache_pop_either");

// A thread's seat in its heap: what visitors, too, read and write of a thread. In the heap, since the memory of a
// thread may be gone before anybody knows that it has ended.
struct hak_seat {
  // What visit.c is about: whether the thread works on its heap, and whether it may: the heap's id, or HAK_NO_OWNER
  // while there is no thread or another one visits the heap. Atomic.
  uint32_t inside;
  uint32_t owner_id;
  uint32_t outbox_clock;
  uint64_t outbox_used;  // bit per slot: something may be gathered there
  struct hak_outbox_slot outbox[HAK_OUTBOX_SLOTS];
};

// The seat of all threads without a heap. Nobody gathers anything there.
extern struct hak_seat hak_no_seat HAK_HIDDEN;

struct hak_cache {
  struct hak_at_hand at_hand;
  // The heap whose slabs this thread owns, NULL before the first slow path and after the thread's end; and its seat.
  struct hak_heap *heap;
  struct hak_seat *seat;
};

// Kind 0 is both "size 0" for malloc and "not ours" for free. Its list is empty, and no pointer is near its head, so
// that both take the slow path. No address, and no value that a program might mistake for one either.
#define HAK_CACHE_NO_BLOCK ((uintptr_t)0xa6d1e3978c580000)
#define HAK_AT_HAND_NOTHING \
  { {HAK_CACHE_NO_BLOCK}, {HAK_NO_OWNER}, {0}, {0}, {0}, {0}, 0 }
#define HAK_CACHE_INIT \
  { HAK_AT_HAND_NOTHING, 0, &hak_no_seat }

// Where blocks of the slab at `base` are gathered. Sixty-four neighbours have one each, of the shortest runs and of the
// longest, whose length is 1 << 20.
static HAK_ALWAYS_INLINE struct hak_outbox_slot *hak_outbox_slot_of(struct hak_seat *seat, uintptr_t base) {
  return &seat->outbox[(base >> HAK_RUN_SHIFT_MIN ^ base >> 20) % HAK_OUTBOX_SLOTS];
}

// Whether the next remote free publishes one of the other slots.
static HAK_ALWAYS_INLINE bool hak_outbox_is_due(const struct hak_seat *seat) {
  return (seat->outbox_clock + 1) % HAK_OUTBOX_AGE == 0;
}

// What of an address may differ within a run of Tiny.
#define HAK_RUN_OFFSET_MASK (((uintptr_t)1 << HAK_RUN_SHIFT_MIN) - 1)
#define HAK_BLOCK_ALIGNMENT ((uintptr_t)16)

// Where poison is: `block`, of `kind`, becomes free.
static HAK_ALWAYS_INLINE void hak_block_poison(uintptr_t block, size_t kind) {
  if (HAK_POISON) hak_poison((void *)block, hak_slab_at(hak_kind_run_base(kind, block))->block_bytes);
}

// The same for a block that is handed out.
static HAK_ALWAYS_INLINE void hak_block_unpoison(uintptr_t block, size_t kind) {
  if (HAK_POISON) hak_unpoison((void *)block, hak_slab_at(hak_kind_run_base(kind, block))->block_bytes);
}

static HAK_ALWAYS_INLINE bool hak_list_is_empty(uintptr_t head) { return (head & HAK_RUN_OFFSET_MASK) == 0; }

// Takes a block of `kind`, or NULL if the list is empty.
static HAK_ALWAYS_INLINE void *hak_cache_pop(struct hak_cache *cache, size_t kind) {
  uintptr_t head = cache->at_hand.list[kind];
  if (HAK_UNLIKELY(hak_list_is_empty(head))) return NULL;
  cache->at_hand.list[kind] = hak_link_get(head);
  hak_block_unpoison(head, kind);
  return (void *)head;
}

// The recent block of `kind`, of Mid, that was freed last.
static HAK_ALWAYS_INLINE uintptr_t hak_recent_newest(const struct hak_cache *cache, size_t kind) {
  return cache->at_hand.recent[kind - HAK_KIND_MID_FIRST];
}

// Takes the newest recent block of `kind`, of Mid; NULL if there is none.
static HAK_ALWAYS_INLINE void *hak_cache_pop_recent(struct hak_cache *cache, size_t kind) {
  struct hak_at_hand *at_hand = &cache->at_hand;
  uintptr_t newest = hak_recent_newest(cache, kind);
  if (HAK_UNLIKELY(hak_list_is_empty(newest))) return NULL;
  ++at_hand->recent_room[kind - HAK_KIND_MID_FIRST];
  uintptr_t next = hak_link_get(newest);
  hak_block_unpoison(newest, kind);
  HAK_HIDE(kind);  // or the address is computed first, to be used twice
  at_hand->recent[kind - HAK_KIND_MID_FIRST] = next;
  return (void *)newest;
}

// As hak_cache_pop of `tiny_kind`, or, if that is none of Tiny's, hak_cache_pop_recent of `mid_kind`, without a branch
// between them: for callers to whom all sizes come, where a processor that foretells it loses. Some 10 instructions
// more.
static HAK_ALWAYS_INLINE void *hak_cache_pop_either(struct hak_cache *cache, size_t tiny_kind, size_t mid_kind) {
  struct hak_at_hand *at_hand = &cache->at_hand;
  size_t is_mid = (size_t)0 - (tiny_kind > HAK_KIND_TINY_LAST);  // a mask
  HAK_HIDE(is_mid);
  size_t index = (tiny_kind & ~is_mid) | ((mid_kind - HAK_KIND_MID_FIRST) & is_mid);
  uintptr_t *first = (uintptr_t *)((uintptr_t)at_hand + (offsetof(struct hak_at_hand, recent) & is_mid)) + index;
  uintptr_t block = *first;
  if (HAK_UNLIKELY(hak_list_is_empty(block))) return NULL;
  int16_t *room = &at_hand->recent_room[index & is_mid];
  *room = (int16_t)(*room + (int)(is_mid & 1));
  *first = hak_link_get(block);
  hak_block_unpoison(block, (tiny_kind & ~is_mid) | (mid_kind & is_mid));
  return (void *)block;
}

// What hak_cache_push found out about a pointer that it did not take.
struct hak_cache_miss {
  size_t kind;         // HAK_KINDS, which is none, if the block was freed just before
  uintptr_t distance;  // else, from the head of the kind's list, as an XOR; not 0
  struct hak_registry_place place;
};

// Frees `p` if it lies in the same 256 KiB as the head of its kind's list; false if it does not, or if it is no block
// at all. `p` may have any value: one that is foreign, unaligned or was freed just before fails here and is sorted out
// by the caller.
static HAK_ALWAYS_INLINE bool hak_cache_push(struct hak_cache *cache, void *p, struct hak_cache_miss *miss) {
  miss->kind = hak_registry_look_up(p, &miss->place);
  if (miss->kind >= HAK_KINDS) __builtin_unreachable();
  uintptr_t head = cache->at_hand.list[miss->kind];
  if (HAK_UNLIKELY(hak_xor_is_zero((uintptr_t)p, head, &miss->distance))) {
    miss->kind = HAK_KINDS;
    return false;
  }
  if (HAK_UNLIKELY((miss->distance & ~(HAK_RUN_OFFSET_MASK - (HAK_BLOCK_ALIGNMENT - 1))) != 0)) return false;
  hak_block_poison((uintptr_t)p, miss->kind);
  hak_link_set((uintptr_t)p, head);
  HAK_COMPILER_BARRIER();  // a fork may catch this thread anywhere, and the child walks over its lists
  cache->at_hand.list[miss->kind] = (uintptr_t)p;
  return true;
}

// Whether the head of a list has such a distance to a block: it is an aligned address, or none of the process's.
static HAK_ALWAYS_INLINE bool hak_distance_is_of_block(uintptr_t distance) {
  return (distance & ~(HAK_ADDRESS_MASK - (HAK_BLOCK_ALIGNMENT - 1))) == 0;
}

// Frees what hak_cache_push has refused, if it is a block of Mid, of this heap, and may become recent. False if not.
static HAK_ALWAYS_INLINE bool hak_cache_push_recent(struct hak_cache *cache, void *p, struct hak_cache_miss miss) {
  if (HAK_CONFIG_HARDENED) return false;  // the place of a freed block is to be hard to foretell
  if (miss.kind == HAK_KINDS) return false;
  struct hak_at_hand *at_hand = &cache->at_hand;
  size_t kind = miss.kind;
  HAK_HIDE(miss.place.registry);  // or the hot path computes the entry's address, to be used twice
  if (hak_load_relaxed(hak_registry_entry_at(miss.place)) != at_hand->recent_entry[kind]) return false;
  if (HAK_UNLIKELY(--at_hand->recent_room[kind - HAK_KIND_MID_FIRST] < 0)) {
    at_hand->recent_room[kind - HAK_KIND_MID_FIRST] = 0;
    at_hand->recent_full[kind - HAK_KIND_MID_FIRST] = true;
    return false;
  }
  if (HAK_UNLIKELY(!hak_distance_is_of_block(miss.distance))) return false;
  uintptr_t newest = hak_recent_newest(cache, kind);
  if (HAK_UNLIKELY(newest == (uintptr_t)p)) return false;  // freed just before
  hak_block_poison((uintptr_t)p, kind);
  hak_link_set((uintptr_t)p, newest);
  HAK_COMPILER_BARRIER();  // as above
  HAK_HIDE(kind);          // as in hak_cache_pop_recent
  at_hand->recent[kind - HAK_KIND_MID_FIRST] = (uintptr_t)p;
  return true;
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HEAP_CACHE_H_

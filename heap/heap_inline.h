// The other ways of free: the block's slab is not current, or has no room among Mid's recent blocks, or belongs to
// another heap. For the router and the tiers on top of heap/.
#ifndef HAKMEM_HEAP_HEAP_INLINE_H_
#define HAKMEM_HEAP_HEAP_INLINE_H_

#include "heap/heap.h"

#ifdef __cplusplus
extern "C" {
#endif

// Called when a slab's countdown has come to 0 by the free of a local block; ends the thread's work on its heap, so
// that the caller has nothing to do after it, and nothing to save for then.
void hak_slab_countdown_and_leave(struct hak_cache *cache, struct hak_slab *slab);

// Begins a slot of the outbox with block `p` of `kind`, which another heap owns, and ends the thread's work on its heap
// likewise.
void hak_outbox_begin_and_leave(struct hak_seat *seat, void *p, size_t kind);

// Puts block `p` into the list of its slab, which is not the current one of Tiny, and which the caller owns. False if
// it was freed just before, or never handed out. `strip_shift` is that of its kind, `offset` where `p` lies in its
// run.
// Where the countdown comes to 0, the caller sees to it.
static HAK_ALWAYS_INLINE bool hak_slab_push(struct hak_slab *slab, void *p, unsigned strip_shift, uint32_t offset) {
  uintptr_t address = (uintptr_t)p;
  if (HAK_UNLIKELY(slab->free == address || !hak_slab_is_carved(slab, strip_shift, offset))) return false;
  hak_block_poison(address, slab->kind);
  hak_link_set(address, slab->free);
  slab->free = address;
  --slab->countdown;
  return true;
}

// Whether `p`, a block of another heap's run at `base`, can be added to what `slot` has of that.
static HAK_ALWAYS_INLINE bool hak_outbox_has_room(const struct hak_outbox_slot *slot, uintptr_t base) {
  return slot->base == base && slot->count < slot->limit;
}

static HAK_ALWAYS_INLINE void hak_outbox_gather(struct hak_seat *seat, struct hak_outbox_slot *slot, void *p) {
  if (HAK_POISON) hak_block_poison((uintptr_t)p, hak_registry_kind(p));
  hak_link_set((uintptr_t)p, slot->head);
  slot->head = (uintptr_t)p;
  ++slot->count;
  ++seat->outbox_clock;
}

// Begins the thread's work on its heap: the heap's id, or HAK_NO_OWNER if it has none or another thread visits it.
static HAK_ALWAYS_INLINE uint32_t hak_heap_enter_fast(struct hak_seat *seat) {
  hak_store_relaxed(&seat->inside, 1);
  // Against a visitor, who writes owner_id, makes all threads pass a barrier, and reads inside (visit.c).
  HAK_COMPILER_BARRIER();
  return hak_load_acquire(&seat->owner_id);  // pairs with readmit, publishes what the visitor did
}

// Ends it.
static HAK_ALWAYS_INLINE void hak_heap_leave(struct hak_seat *seat) { hak_store_release(&seat->inside, 0); }

static HAK_ALWAYS_INLINE bool hak_leave_and_say(struct hak_seat *seat, bool done) {
  hak_heap_leave(seat);
  return done;
}

// Frees `p`, whose entry says that it is the heap's that this thread works on, and ends that work.
static HAK_ALWAYS_INLINE bool hak_free_own_and_leave(struct hak_cache *cache, struct hak_seat *seat, void *p,
                                                     const uint32_t *entry, unsigned strip_shift, uint32_t offset) {
  struct hak_slab *slab = (struct hak_slab *)hak_slab_private_descriptor_beside(entry, (uintptr_t)p, offset);
  if (HAK_UNLIKELY(!hak_slab_push(slab, p, strip_shift, offset))) return hak_leave_and_say(seat, false);
  if (HAK_LIKELY(slab->countdown != 0)) return hak_leave_and_say(seat, true);
  hak_slab_countdown_and_leave(cache, slab);
  return true;
}

// The same where it is another heap's: `unlike_own` is the entry but for this heap's id, `base` that of the block's
// run.
static HAK_ALWAYS_INLINE bool hak_gather_and_leave(struct hak_seat *seat, void *p, uint32_t own_id, uint32_t unlike_own,
                                                   uintptr_t base) {
  struct hak_outbox_slot *slot = hak_outbox_slot_of(seat, base);
  HAK_HIDE(slot);
  bool refused = own_id == HAK_NO_OWNER || hak_outbox_is_due(seat) || slot->head == (uintptr_t)p;  // freed just before
  if (HAK_UNLIKELY(refused)) return hak_leave_and_say(seat, false);
  if (!hak_outbox_has_room(slot, base)) {
    hak_outbox_begin_and_leave(seat, p, hak_entry_kind(unlike_own));  // an owner's id has no bits there
    return true;
  }
  hak_outbox_gather(seat, slot, p);
  return hak_leave_and_say(seat, true);
}

// Frees `p`, of which Tiny or Mid is the owner and `miss` what hak_cache_push left, if it is a block of a slab that
// this thread owns, or one of another heap's and no slot of the outbox is due. False, and nothing has changed, in every
// other case, and where the pointer looks wrong: hak_heap_free takes it from there. `run_shift` and
// `strip_shift` are those of its kind.
static HAK_ALWAYS_INLINE bool hak_heap_free_fast(struct hak_cache *cache, void *p, struct hak_cache_miss miss,
                                                 unsigned run_shift, unsigned strip_shift) {
  if (HAK_UNLIKELY(!hak_distance_is_of_block(miss.distance))) return false;
  bool is_mid = miss.kind >= HAK_KIND_MID_FIRST;
  if (is_mid && HAK_UNLIKELY(hak_recent_newest(cache, miss.kind) == (uintptr_t)p)) return false;  // freed just before
  const uint32_t *entry = hak_registry_entry_at(miss.place);
  uint32_t offset = (uint32_t)((uintptr_t)p & (((uintptr_t)1 << run_shift) - 1));
  struct hak_seat *seat = cache->seat;
  uint32_t own_id = hak_heap_enter_fast(seat);
  uint32_t unlike_own = hak_load_relaxed(entry) ^ own_id;
  if (HAK_LIKELY(unlike_own < HAK_OWNER_STEP))
    return hak_free_own_and_leave(cache, seat, p, entry, strip_shift, offset);
  return hak_gather_and_leave(seat, p, own_id, unlike_own, (uintptr_t)p - offset);
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HEAP_HEAP_INLINE_H_

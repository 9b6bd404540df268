// The other ways of free, together nearly as frequent as the first: the block's slab is a long run of which the list's
// head lies in another part, or not current, or belongs to another heap. For the router and the tiers on top of heap/.
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
void hak_outbox_begin_and_leave(struct hak_cache *cache, void *p, size_t kind);

// By kind of Mid: the bits of which none is set in the distance of two blocks of the same run, sign-extended. A table,
// since the baseline of x86-64 shifts by a variable in one register only.
extern const int32_t hak_run_outside[HAK_KINDS] HAK_HIDDEN;

// Frees `p`, of Mid, if it lies in the same run as the head of its kind's list and is not that head; `kind` and
// `distance` are what hak_cache_push left when it refused `p`, which looks no further than 64 KiB. False, and nothing
// has changed, otherwise.
static HAK_ALWAYS_INLINE bool hak_cache_push_run(struct hak_cache *cache, void *p, size_t kind, uintptr_t distance) {
  if ((distance & (uintptr_t)(intptr_t)hak_run_outside[kind]) != 0) return false;
  hak_block_poison((uintptr_t)p, kind);
  hak_link_set((uintptr_t)p, cache->list[kind]);
  HAK_COMPILER_BARRIER();  // as in hak_cache_push
  cache->list[kind] = (uintptr_t)p;
  return true;
}

// The recent block of `kind`, of Mid, that was freed last; 0 if there is none.
static HAK_ALWAYS_INLINE uintptr_t hak_recent_newest(const struct hak_cache *cache, size_t kind) {
  return cache->recent[kind - HAK_KIND_MID_FIRST];
}

// Makes `p`, of a slab that is not current and that the caller owns, and not the newest, a recent block of its kind, of
// Mid. False, and nothing has changed, if there are enough; hardened: always, since the place of a freed block is to be
// hard to foretell.
static HAK_ALWAYS_INLINE bool hak_recent_push(struct hak_cache *cache, void *p, size_t kind) {
  if (HAK_CONFIG_HARDENED) return false;
  size_t index = kind - HAK_KIND_MID_FIRST;
  if (cache->n_recent[index] >= HAK_RECENT_MAX) return false;
  hak_block_poison((uintptr_t)p, kind);
  hak_link_set((uintptr_t)p, cache->recent[index]);
  HAK_COMPILER_BARRIER();  // as in hak_cache_push
  cache->recent[index] = (uintptr_t)p;
  ++cache->n_recent[index];
  return true;
}

// Puts block `p` into the list of its slab, which is not current or a long run, and which the caller owns. False if it
// was freed just before, or never handed out. `run_shift` is that of its kind, `offset` where `p` lies in its run.
// Where the countdown comes to 0, the caller sees to it.
static HAK_ALWAYS_INLINE bool hak_slab_push(struct hak_slab *slab, void *p, unsigned run_shift, uint32_t offset) {
  uintptr_t address = (uintptr_t)p;
  if (HAK_UNLIKELY(slab->free == address || !hak_slab_is_carved(slab, run_shift, offset))) return false;
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

static HAK_ALWAYS_INLINE void hak_outbox_gather(struct hak_cache *cache, struct hak_outbox_slot *slot, void *p) {
  if (HAK_POISON) hak_block_poison((uintptr_t)p, hak_registry_kind(p));
  hak_link_set((uintptr_t)p, slot->head);
  slot->head = (uintptr_t)p;
  ++slot->count;
  ++cache->outbox_clock;
}

// Whether the head of a list has such a distance to a block: it is an aligned address, or none of the process's.
static HAK_ALWAYS_INLINE bool hak_distance_is_of_block(uintptr_t distance) {
  return (distance & ~(HAK_ADDRESS_MASK - (HAK_BLOCK_ALIGNMENT - 1))) == 0;
}

// Begins the thread's work on its heap: the heap's id, or HAK_NO_OWNER if it has none or another thread visits it.
static HAK_ALWAYS_INLINE uint32_t hak_heap_enter_fast(struct hak_cache *cache) {
  hak_store_relaxed(&cache->inside, 1);
  // Against a visitor, who writes owner_id, makes all threads pass a barrier, and reads inside (visit.c).
  HAK_COMPILER_BARRIER();
  return hak_load_acquire(&cache->owner_id);  // pairs with readmit, publishes what the visitor did
}

// Ends it.
static HAK_ALWAYS_INLINE void hak_heap_leave(struct hak_cache *cache) { hak_store_release(&cache->inside, 0); }

static HAK_ALWAYS_INLINE bool hak_leave_and_say(struct hak_cache *cache, bool done) {
  hak_heap_leave(cache);
  return done;
}

// Frees `p`, whose entry says that it is the heap's that this thread works on, and ends that work.
static HAK_ALWAYS_INLINE bool hak_free_own_and_leave(struct hak_cache *cache, void *p, const uint32_t *entry,
                                                     unsigned run_shift, uint32_t offset) {
  struct hak_slab *slab = (struct hak_slab *)hak_slab_private_descriptor_beside(entry, (uintptr_t)p, offset);
  if (HAK_UNLIKELY(!hak_slab_push(slab, p, run_shift, offset))) return hak_leave_and_say(cache, false);
  if (HAK_LIKELY(slab->countdown != 0)) return hak_leave_and_say(cache, true);
  hak_slab_countdown_and_leave(cache, slab);
  return true;
}

// The same where it is another heap's: `unlike_own` is the entry but for this heap's id, `base` that of the block's
// run.
static HAK_ALWAYS_INLINE bool hak_gather_and_leave(struct hak_cache *cache, void *p, uint32_t own_id,
                                                   uint32_t unlike_own, uintptr_t base) {
  struct hak_outbox_slot *slot = hak_outbox_slot_of(cache, base);
  HAK_HIDE(slot);
  bool refused = own_id == HAK_NO_OWNER || hak_outbox_is_due(cache) || slot->head == (uintptr_t)p;  // freed just before
  if (HAK_UNLIKELY(refused)) return hak_leave_and_say(cache, false);
  if (!hak_outbox_has_room(slot, base)) {
    hak_outbox_begin_and_leave(cache, p, hak_entry_kind(unlike_own));  // an owner's id has no bits there
    return true;
  }
  hak_outbox_gather(cache, slot, p);
  return hak_leave_and_say(cache, true);
}

// Frees `p`, of Tiny, if it is a block of a slab that this thread owns, and not of the current one's list, or one of
// another heap's and no slot of the outbox is due. `distance`, not 0, and `index` are what hak_cache_push left. False,
// and nothing has changed, in every other case, and where the pointer looks wrong: hak_heap_free takes it from there.
static HAK_ALWAYS_INLINE bool hak_heap_free_fast(struct hak_cache *cache, void *p, uintptr_t distance, uint64_t index) {
  if (HAK_UNLIKELY(!hak_distance_is_of_block(distance))) return false;
  const uint32_t *entry = hak_registry_entry_at(index);
  uint32_t own_id = hak_heap_enter_fast(cache);
  uint32_t unlike_own = hak_load_relaxed(entry) ^ own_id;
  if (HAK_LIKELY(unlike_own < HAK_OWNER_STEP)) {
    return hak_free_own_and_leave(cache, p, entry, HAK_SLAB_SHIFT, (uint16_t)(uintptr_t)p);
  }
  return hak_gather_and_leave(cache, p, own_id, unlike_own, hak_round_down((uintptr_t)p, HAK_SLAB_BYTES));
}

// The same of `kind` of Mid. A block of the thread's own becomes a recent one, if there is room; for that no more is
// read than the owner's id, which cannot change while a block is in use, so that the thread need not begin to work on
// its heap.
static HAK_ALWAYS_INLINE bool hak_heap_free_run_fast(struct hak_cache *cache, void *p, size_t kind, uintptr_t distance,
                                                     uint64_t index) {
  if (HAK_UNLIKELY(!hak_distance_is_of_block(distance))) return false;
  if (kind < HAK_KIND_MID_FIRST) __builtin_unreachable();
  const uint32_t *entry = hak_registry_entry_at(index);
  bool is_own = (hak_load_relaxed(entry) ^ hak_load_relaxed(&cache->owner_id)) < HAK_OWNER_STEP;
  if (is_own) {
    if (HAK_UNLIKELY(hak_recent_newest(cache, kind) == (uintptr_t)p)) return false;  // freed just before
    if (hak_recent_push(cache, p, kind)) return true;
  }
  uint32_t offset = (uint32_t)(uintptr_t)p & ~(uint32_t)hak_run_outside[kind];  // since `p` is aligned
  uint32_t own_id = hak_heap_enter_fast(cache);
  uint32_t unlike_own = hak_load_relaxed(entry) ^ own_id;
  // A visitor may have come in between.
  if (HAK_UNLIKELY(is_own != (unlike_own < HAK_OWNER_STEP))) return hak_leave_and_say(cache, false);
  if (is_own) return hak_free_own_and_leave(cache, p, entry, hak_kind_run_shift(kind), offset);
  return hak_gather_and_leave(cache, p, own_id, unlike_own, (uintptr_t)p - offset);
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HEAP_HEAP_INLINE_H_

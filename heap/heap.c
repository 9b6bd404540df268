#include "heap/heap.h"

#include "base/atomic.h"
#include "base/bits.h"
#include "heap/heap_inline.h"
#include "heap/heap_internal.h"
#include "platform/report.h"

// Bins

static struct hak_slab **list_of(struct hak_heap *heap, const struct hak_slab *slab) {
  return &heap->bin[slab->kind].slabs[slab->state];
}

void hak_bin_link(struct hak_heap *heap, struct hak_slab *slab) {
  struct hak_slab **first = list_of(heap, slab);
  slab->prev = NULL;
  slab->next = *first;
  if (slab->next != NULL) slab->next->prev = slab;
  *first = slab;
}

void hak_bin_unlink(struct hak_heap *heap, struct hak_slab *slab) {
  struct hak_bin *bin = &heap->bin[slab->kind];
  if (bin->next_asleep == slab) bin->next_asleep = slab->next;
  if (slab->next != NULL) slab->next->prev = slab->prev;
  if (slab->prev != NULL) {
    slab->prev->next = slab->next;
  } else {
    *list_of(heap, slab) = slab->next;
  }
}

// The state of a slab with `n_used` used blocks that can become current.
static enum hak_slab_state state_awake(const struct hak_slab *slab, uint32_t n_used) {
  return n_used > hak_slab_eighth(slab) ? HAK_SLAB_AWAKE : HAK_SLAB_SPARSE;
}

// How many blocks must be free to wake a PARTLY_CARVED slab: worth the change of slabs, and possible.
static uint32_t partly_carved_wake(const struct hak_slab *slab) {
  uint32_t n_carved = hak_strip_carved_blocks(slab);
  return (uint32_t)hak_max(n_carved / 8, hak_min(n_carved, 8));
}

// Sets the countdown of a slab with `n_used` used blocks to when its state changes, or has to be looked at.
static void set_countdown(struct hak_slab *slab, uint32_t n_used) {
  switch ((enum hak_slab_state)slab->state) {
    case HAK_SLAB_ASLEEP:
      slab->rest = slab->n_blocks - hak_slab_eighth(slab);
      break;
    case HAK_SLAB_PARTLY_CARVED:
      slab->rest = slab->n_blocks - partly_carved_wake(slab);
      break;
    case HAK_SLAB_AWAKE:
      slab->rest = hak_slab_eighth(slab);
      break;
    case HAK_SLAB_SPARSE:
    case HAK_SLAB_CURRENT:
      slab->rest = n_used > hak_slab_last_blocks(slab) ? hak_slab_last_blocks(slab) : 0;
  }
  slab->countdown = (int32_t)(n_used - slab->rest);
}

// The only slab that a kind has beside its current one is given back only if more than half of it holds pages. These
// may serve other kinds then; of a slab that is half empty the next kind would touch the other half, and this kind
// another slab: more pages in all.
static bool is_worth_keeping(const struct hak_heap *heap, const struct hak_slab *slab) {
  bool only_one = slab->prev == NULL && slab->next == NULL && heap->bin[slab->kind].slabs[HAK_SLAB_AWAKE] == NULL;
  bool is_half_empty = hak_slab_dirty_bytes(slab) <= hak_kind_run_slabs(slab->kind) * HAK_SLAB_BYTES / 2;
  return only_one && is_half_empty && !heap->set->diet && hak_load_relaxed(&heap->orphan) == 0;
}

void hak_slab_emptied(struct hak_heap *heap, struct hak_slab *slab) {
  HAK_CHECK(slab->state == HAK_SLAB_SPARSE && hak_slab_used(slab) == 0);
  // In mail: whoever published last may still be about to link the slab; it comes back here when drained.
  if (hak_load_relaxed(&hak_slab_remote_at(slab->base)->word) != slab->base) return;
  if (is_worth_keeping(heap, slab)) {
    hak_unused_note(heap, slab);
    return;
  }
  hak_bin_unlink(heap, slab);
  hak_slab_release(heap, slab);
}

// Puts a slab that is in no list and has `n_used` used blocks into the state that this means.
static void enter_state(struct hak_heap *heap, struct hak_slab *slab, enum hak_slab_state state, uint32_t n_used) {
  slab->state = (uint8_t)state;
  set_countdown(slab, n_used);
  hak_bin_link(heap, slab);
}

// Wakes a slab that is ASLEEP or PARTLY_CARVED. The heap that has it then.
static struct hak_heap *wake(struct hak_heap *heap, struct hak_slab *slab) {
  uint32_t n_uncarved = slab->uncarved == 0 ? 0 : slab->n_blocks - hak_strip_carved_blocks(slab);
  uint32_t n_used = hak_slab_used(slab) - n_uncarved;
  hak_unused_forget(heap, slab);
  hak_bin_unlink(heap, slab);
  if (hak_load_relaxed(&heap->orphan) != 0) {
    // Nobody would find it in an orphan's bin.
    heap = heap->set->public_heap;
    hak_slab_change_owner(slab, heap);
  }
  enter_state(heap, slab, state_awake(slab, n_used), n_used);
  return heap;
}

// Changes the state of a slab that is not CURRENT, whose countdown has come to 0.
static void change_state(struct hak_heap *heap, struct hak_slab *slab) {
  if (slab->state == HAK_SLAB_ASLEEP || slab->state == HAK_SLAB_PARTLY_CARVED) {
    heap = wake(heap, slab);
  } else {
    uint32_t n_used = hak_slab_used(slab);
    hak_bin_unlink(heap, slab);
    enter_state(heap, slab, state_awake(slab, n_used), n_used);
  }
  if (hak_slab_used(slab) == 0) {
    hak_slab_emptied(heap, slab);
  } else {
    hak_unused_note(heap, slab);
  }
}

void hak_slab_credit(struct hak_heap *heap, struct hak_slab *slab, uint32_t n) {
  slab->countdown -= (int32_t)n;
  if (slab->countdown <= 0) change_state(heap, slab);
}

// Refill

// Takes what other threads have freed in the current slab; its mail, if any, is drained later and finds nothing.
static bool take_remote(struct hak_slab *slab, uintptr_t *list) {
  uint64_t *word = &hak_slab_remote_at(slab->base)->word;
  uint64_t found = hak_load_relaxed(word);
  if (found >> HAK_REMOTE_COUNT_SHIFT == 0) return false;
  while (!hak_cas_acquire(word, &found, slab->base | (found & HAK_REMOTE_IN_MAIL))) {
  }
  *list = HAK_REMOTE_HEAD(found);
  return true;
}

// Takes what is free of the current slab and was carved before.
static bool fill_list(struct hak_slab *slab, uintptr_t *list) {
  if (slab->free == slab->base) return take_remote(slab, list);
  *list = slab->free;
  slab->free = slab->base;
  return true;
}

// Whether strips that are not carved hold pages, which is what huge pages are for where they are always wanted.
static bool holds_pages_for_nothing(const struct hak_heap *heap, const struct hak_slab *slab) {
  return (slab->uncarved & slab->dirty) != 0 && hak_load_relaxed(&heap->set->pool->thp) != HAK_THP_ALWAYS;
}

static void make_current(struct hak_heap *heap, struct hak_slab *slab) {
  hak_unused_forget(heap, slab);
  slab->seen = 0;
  if (hak_slab_used(slab) == 0) hak_strip_restart(slab);
  slab->state = HAK_SLAB_CURRENT;
  if (holds_pages_for_nothing(heap, slab)) hak_unused_note_current(heap, slab);
  slab->countdown = HAK_COUNTDOWN_NEVER;
  heap->bin[slab->kind].current = slab;
}

void hak_bin_return_current(struct hak_heap *heap, size_t kind, uintptr_t *list) {
  struct hak_bin *bin = &heap->bin[kind];
  struct hak_slab *slab = bin->current;
  uint32_t n_free = 0;
  uintptr_t tail = 0;
  for (uintptr_t block = *list; !hak_list_is_empty(block); block = hak_link_get(block)) {
    tail = block;
    ++n_free;
  }
  for (uintptr_t block = slab->free; block != slab->base; block = hak_link_get(block)) ++n_free;
  if (tail != 0) {
    hak_link_set(tail, slab->free);
    slab->free = *list;
  }
  *list = 0;
  bin->current = NULL;
  hak_unused_forget(heap, slab);

  uint32_t n_used = hak_strip_carved_blocks(slab) - n_free;
  slab->seen = 0;
  if (n_used == slab->n_blocks) {
    enter_state(heap, slab, HAK_SLAB_ASLEEP, n_used);
    return;
  }
  // Also with less than an eighth free: it is known to have a free block.
  enter_state(heap, slab, state_awake(slab, n_used), n_used);
  if (n_used == 0) {
    hak_slab_emptied(heap, slab);
  } else {
    hak_unused_note(heap, slab);
  }
}

void hak_bins_return_current(struct hak_heap *heap, struct hak_at_hand *at_hand) {
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    if (heap->bin[kind].current != NULL) hak_bin_return_current(heap, kind, &at_hand->list[kind]);
  }
}

static struct hak_slab *with_free_block(struct hak_slab *slab) {
  while (slab != NULL && hak_slab_used(slab) == slab->n_blocks) slab = slab->next;
  return slab;
}

// When memory has run out: a slab with fewer free blocks than would wake it. The search goes on behind the one that was
// found last, so that it does not pass all that are full each time.
static struct hak_slab *wake_early(struct hak_heap *heap, size_t kind) {
  struct hak_bin *bin = &heap->bin[kind];
  struct hak_slab *slab = with_free_block(bin->next_asleep);
  if (slab == NULL) slab = with_free_block(bin->slabs[HAK_SLAB_ASLEEP]);
  bin->next_asleep = slab;  // which is about to leave the list
  if (slab == NULL) slab = with_free_block(bin->slabs[HAK_SLAB_PARTLY_CARVED]);
  if (slab != NULL) (void)wake(heap, slab);
  return slab;
}

// Fuller ones first, so that the emptier ones can become empty.
static struct hak_slab *first_awake(const struct hak_bin *bin) {
  return bin->slabs[HAK_SLAB_AWAKE] != NULL ? bin->slabs[HAK_SLAB_AWAKE] : bin->slabs[HAK_SLAB_SPARSE];
}

// The slab that is to become current, in no list; NULL when memory has run out.
static struct hak_slab *next_slab(struct hak_heap *heap, const struct hak_class *geometry) {
  const struct hak_bin *bin = &heap->bin[geometry->kind];
  struct hak_slab *slab = first_awake(bin);
  if (slab == NULL) slab = bin->slabs[HAK_SLAB_PARTLY_CARVED];
  if (slab == NULL) {
    slab = hak_public_take(heap, geometry->kind);
    if (slab == NULL) slab = hak_slab_fresh(heap, geometry);
    if (slab != NULL) return slab;
    slab = wake_early(heap, geometry->kind);
  }
  if (slab != NULL) hak_bin_unlink(heap, slab);
  return slab;
}

// Puts the current slab, which has no free block, into the state that this means.
static void set_aside(struct hak_heap *heap, struct hak_slab *slab) {
  hak_unused_forget(heap, slab);
  if (slab->uncarved == hak_kind_strips_all(slab->kind)) {
    // A visitor has given back all of it.
    enter_state(heap, slab, HAK_SLAB_SPARSE, 0);
    hak_slab_emptied(heap, slab);
    return;
  }
  if (holds_pages_for_nothing(heap, slab)) hak_unused_note_current(heap, slab);
  enter_state(heap, slab, slab->uncarved == 0 ? HAK_SLAB_ASLEEP : HAK_SLAB_PARTLY_CARVED, slab->n_blocks);
}

static bool refill(struct hak_cache *cache, const struct hak_class *geometry, uintptr_t *list) {
  struct hak_heap *heap = cache->heap;
  struct hak_bin *bin = &heap->bin[geometry->kind];
  struct hak_slab *current = bin->current;
  if (current != NULL && fill_list(current, list)) return true;
  // Before more memory is touched, what other slabs have is used.
  bool may_carve = current != NULL && bin->slabs[HAK_SLAB_AWAKE] == NULL && !hak_has_mail(heap);
  if (may_carve && hak_strip_carve(heap, current, list)) return true;

  hak_outbox_flush(cache->seat);
  (void)hak_mail_drain(heap, HAK_DRAIN_SOME);
  if (current != NULL && fill_list(current, list)) return true;
  may_carve = current != NULL && bin->slabs[HAK_SLAB_AWAKE] == NULL;
  if (may_carve && hak_strip_carve(heap, current, list)) return true;
  struct hak_slab *slab = next_slab(heap, geometry);
  // Without a successor the current slab stays current: what is freed in it can be had at once.
  if (slab == NULL) return false;
  if (current != NULL) set_aside(heap, current);
  make_current(heap, slab);
  while (!fill_list(slab, list) && !hak_strip_carve(heap, slab, list)) {
    // The limit (limit.h) allows for no more pages, and all that the slab has free was purged. Another one may have
    // what can be used at once.
    *list = slab->base;
    slab = first_awake(bin);
    if (slab == NULL) slab = wake_early(heap, geometry->kind);
    if (slab == NULL) return false;
    hak_bin_unlink(heap, slab);
    set_aside(heap, bin->current);
    make_current(heap, slab);
  }
  return true;
}

// Lets blocks of Mid become recent. Where there was no room for all since the last refill, twice as many: that more are
// wanted shows that it would have been of use to keep them.
static void open_recent(struct hak_heap *heap, struct hak_at_hand *at_hand, const struct hak_class *geometry) {
  size_t index = geometry->kind - HAK_KIND_MID_FIRST;
  size_t max = at_hand->recent_max[index];
  size_t more = hak_min(max, HAK_RECENT_MAX - max);
  // A block that is used holds a page at least.
  size_t more_bytes = more * hak_max(geometry->block_bytes, heap->set->pool->os->page_bytes);
  bool fits = !heap->set->diet && at_hand->recent_bytes + more_bytes <= HAK_RECENT_BYTES;
  if (max == 0) {
    at_hand->recent_max[index] = HAK_RECENT_MIN;
  } else if (at_hand->recent_full[index] && fits) {
    at_hand->recent_bytes += more_bytes;
    at_hand->recent_max[index] = (uint8_t)(max + more);
  }
  at_hand->recent_room[index] = at_hand->recent_max[index];
  at_hand->recent_full[index] = false;
  at_hand->recent_entry[geometry->kind] = hak_entry_make(heap->id, geometry->kind);
}

// Frees in a current slab count nothing, so that nobody learns when it is empty, and the last slab of each kind would
// stay when the program has dropped all it had. So a heap that takes more memory, or gives back much, and with each
// tick, looks for kinds that are not in use any more: since the last look they took no slab and no strip, and the list
// of Tiny begins with the same block. Their slabs cease to be current, and what is freed in them counts. That takes a
// walk over all that they have free. A kind that is in use after all (its blocks are freed before the next is wanted,
// or Mid's recent ones serve it) gets its slab back with the next malloc that asks for it.
#define LOOK_TAKEN_BYTES ((size_t)512 * 1024)
#define LOOK_RETURNED_BYTES ((size_t)4 * 1024 * 1024)

static void return_unused_kinds(struct hak_cache *cache) {
  struct hak_heap *heap = cache->heap;
  heap->taken_bytes = 0;
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    struct hak_slab *slab = heap->bin[kind].current;
    if (slab == NULL) continue;
    uintptr_t place = cache->at_hand.list[kind] / HAK_BLOCK_ALIGNMENT;
    uint16_t seen = (uint16_t)(2 * (place + (unsigned)hak_count_bits(slab->uncarved)) + 1);  // not 0
    if (slab->seen == seen) {
      hak_bin_return_current(heap, kind, &cache->at_hand.list[kind]);
    } else {
      slab->seen = seen;
    }
  }
}

bool hak_heap_refill(struct hak_cache *cache, const struct hak_class *geometry) {
  struct hak_at_hand *at_hand = &cache->at_hand;
  size_t kind = geometry->kind;
  bool is_mid = kind >= HAK_KIND_MID_FIRST;
  uintptr_t *list = is_mid ? &at_hand->recent[kind - HAK_KIND_MID_FIRST] : &at_hand->list[kind];
  hak_heap_enter(cache);
  if (HAK_UNLIKELY(cache->heap->taken_bytes >= LOOK_TAKEN_BYTES)) return_unused_kinds(cache);
  bool done = refill(cache, geometry, list);
  if (HAK_UNLIKELY(!done && hak_has_mail(cache->heap))) {
    // Memory has run out: so all mail is worth its time.
    (void)hak_mail_drain(cache->heap, HAK_DRAIN_ALL);
    done = refill(cache, geometry, list);
  }
  if (is_mid && done) open_recent(cache->heap, at_hand, geometry);
  hak_heap_leave(cache->seat);
  return done;
}

void *hak_heap_take_any(struct hak_cache *cache, size_t first, size_t last,
                        void *(*take_of_kind)(struct hak_cache *cache, size_t kind)) {
  void *block = NULL;
  cache->heap->takes_no_runs = true;
  for (size_t kind = first; block == NULL && kind <= last; ++kind) block = take_of_kind(cache, kind);
  cache->heap->takes_no_runs = false;
  return block;
}

size_t hak_heap_lender(struct hak_cache *cache, size_t kind, size_t shared_kind, uint32_t max_blocks) {
  struct hak_bin *bin = &cache->heap->bin[kind];
  if (HAK_LIKELY(!cache->heap->set->diet) || bin->current != NULL || bin->n_borrowed == max_blocks) return kind;
  ++bin->n_borrowed;
  return shared_kind;
}

// Free

// Recent blocks go back to their slabs with each tick, when the heap has given back much, and when all memory is wanted
// back: they would keep slabs from becoming empty. There are none then until the kind is asked for again, since a
// program that drops what it has would only leave others.

static void return_recent(struct hak_at_hand *at_hand, size_t kind) {
  uintptr_t block = at_hand->recent[kind - HAK_KIND_MID_FIRST];
  at_hand->recent[kind - HAK_KIND_MID_FIRST] = 0;
  at_hand->recent_entry[kind] = 0;
  uintptr_t next;
  for (; !hak_list_is_empty(block); block = next) {
    next = hak_link_get(block);
    struct hak_slab *slab = hak_slab_at(hak_kind_run_base(kind, block));
    // Not as the first one: by that a double free is known.
    uintptr_t first = slab->free;
    if (first == slab->base) {
      hak_link_set(block, first);
      slab->free = block;
    } else {
      hak_link_set(block, hak_link_get(first));
      hak_link_set(first, block);
    }
    // Of an orphan, the block before may have given the slab to the public heap.
    hak_slab_credit(hak_load_relaxed(&hak_slab_remote_at(slab->base)->owner), slab, 1);
  }
}

void hak_recent_return(struct hak_at_hand *at_hand) {
  for (size_t kind = HAK_KIND_MID_FIRST; kind <= HAK_KIND_MID_LAST; ++kind) {
    return_recent(at_hand, kind);
    at_hand->recent_max[kind - HAK_KIND_MID_FIRST] = 0;
  }
  at_hand->recent_bytes = 0;
}

static void countdown_has_ended(struct hak_heap *heap, struct hak_slab *slab) {
  if (slab->state == HAK_SLAB_CURRENT) {
    slab->countdown = HAK_COUNTDOWN_NEVER;  // two billion frees later
  } else {
    change_state(heap, slab);
  }
}

// The same where memory is wanted back.
static void look_for_unused_kinds(struct hak_cache *cache) {
  cache->heap->returned_bytes = 0;
  hak_recent_return(&cache->at_hand);
  return_unused_kinds(cache);
}

static void end_countdown(struct hak_cache *cache, struct hak_slab *slab) {
  size_t kind = slab->kind;
  bool was_awake = slab->state >= HAK_SLAB_AWAKE;
  countdown_has_ended(cache->heap, slab);
  // Blocks are dropped faster than they are wanted. Recent ones would keep their slabs from becoming empty.
  if (kind >= HAK_KIND_MID_FIRST && was_awake && cache->at_hand.recent_room[kind - HAK_KIND_MID_FIRST] == 0) {
    return_recent(&cache->at_hand, kind);
  }
  if (HAK_UNLIKELY(cache->heap->returned_bytes >= LOOK_RETURNED_BYTES)) look_for_unused_kinds(cache);
}

HAK_NOINLINE void hak_slab_countdown_and_leave(struct hak_cache *cache, struct hak_slab *slab) {
  end_countdown(cache, slab);
  hak_heap_leave(cache->seat);
}

// Why a block of this thread was refused.
static HAK_COLD HAK_NORETURN void fatal_local(struct hak_cache *cache, const struct hak_slab *slab, void *p,
                                              const char *function) {
  uint32_t offset = (uint32_t)((uintptr_t)p - slab->base);
  bool carved = hak_slab_is_carved(slab, hak_kind_strip_shift(slab->kind), offset);
  hak_heap_fatal(cache, function, p, carved ? HAK_MISUSE_DOUBLE_FREE : HAK_MISUSE_FOREIGN);
}

static void free_local(struct hak_cache *cache, void *p, size_t kind, const char *function) {
  uintptr_t newest = kind < HAK_KIND_MID_FIRST ? cache->at_hand.list[kind] : hak_recent_newest(cache, kind);
  struct hak_slab *slab = hak_slab_at(hak_kind_run_base(kind, (uintptr_t)p));
  uint32_t offset = (uint32_t)((uintptr_t)p - slab->base);
  if (HAK_UNLIKELY(newest == (uintptr_t)p || !hak_slab_push(slab, p, hak_kind_strip_shift(kind), offset))) {
    fatal_local(cache, slab, p, function);
  }
  if (HAK_UNLIKELY(slab->countdown == 0)) end_countdown(cache, slab);
}

void hak_heap_free(struct hak_cache *cache, void *p, const char *function) {
  if (HAK_UNLIKELY((uintptr_t)p % HAK_BLOCK_ALIGNMENT != 0)) hak_fatal_misuse(function, p, HAK_MISUSE_UNALIGNED);
  bool has_heap = cache->heap != NULL;
  if (has_heap) hak_heap_enter(cache);
  // Read here and not by the caller: before, the slab may have changed hands.
  uint32_t entry = hak_registry_find(p);
  size_t kind = hak_entry_kind(entry);
  if (has_heap && hak_entry_owner(entry) == cache->heap->id) {
    free_local(cache, p, kind, function);
  } else {
    hak_outbox_add(cache, p, kind, function);
  }
  if (has_heap) hak_heap_leave(cache->seat);
}

void hak_heap_flush(struct hak_cache *cache) {
  hak_heap_enter(cache);
  hak_outbox_flush(cache->seat);
  hak_heap_leave(cache->seat);
}

// Trim

size_t hak_heap_trim(struct hak_cache *cache) {
  struct hak_heap *heap = cache->heap;
  hak_heap_enter(cache);
  hak_outbox_flush(cache->seat);
  (void)hak_mail_drain(heap, HAK_DRAIN_ALL);
  hak_recent_return(&cache->at_hand);
  hak_bins_return_current(heap, &cache->at_hand);
  size_t n_looks = SIZE_MAX;
  size_t returned = hak_heap_release_unused(heap, &n_looks);
  hak_heap_leave(cache->seat);
  return returned;
}

void hak_heap_tick(struct hak_cache *cache) {
  struct hak_heap *heap = cache->heap;
  const struct hak_retain *retain = &heap->set->pool->retain;
  uint64_t now = retain->os->now_ms();
  uint64_t interval_ms = hak_retain_look_interval_ms(retain);
  // A visitor may have done a part of it, but not what concerns the cache.
  bool cache_is_due = now - heap->ticked_ms >= interval_ms;
  bool heap_is_due = now - hak_load_relaxed(&heap->decayed_ms) >= interval_ms;
  if (!cache_is_due && !heap_is_due) return;
  hak_heap_enter(cache);
  if (cache_is_due) {
    heap->ticked_ms = now;
    hak_recent_return(&cache->at_hand);
  }
  size_t n_looks = HAK_DECAY_LOOKS;
  if (heap_is_due) (void)hak_heap_decay(heap, now, &n_looks);
  if (cache_is_due) look_for_unused_kinds(cache);
  hak_heap_leave(cache->seat);
}

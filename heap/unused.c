// Memory of a heap that no block uses: what is counted, what is kept, and what goes back to the operating system.
#include "base/atomic.h"
#include "base/bits.h"
#include "heap/heap_internal.h"

// A SPARSE slab that has come to its last blocks counts as unused memory until its free strips were looked at, mostly
// once.
static void set_purgeable(struct hak_heap *heap, struct hak_slab *slab, bool purgeable) {
  bool counted = purgeable && slab->state == HAK_SLAB_SPARSE && hak_slab_used(slab) <= hak_slab_last_blocks(slab);
  slab->purgeable = purgeable;
  if (HAK_LIKELY(slab->counted == counted)) return;
  slab->counted = counted;
  size_t change = counted ? hak_slab_dirty_bytes(slab) : (size_t)0 - hak_slab_dirty_bytes(slab);
  heap->counted_bytes += change;
  heap->bin[slab->kind].n_counted += counted ? 1 : (uint32_t)-1;
  hak_retain_add_unused(&heap->set->pool->retain, change);
}

void hak_unused_forget(struct hak_heap *heap, struct hak_slab *slab) { set_purgeable(heap, slab, false); }

// Whether strips may have become free since the slab was looked at.
static bool is_purgeable(const struct hak_slab *slab) { return slab->purgeable || hak_slab_used(slab) < slab->seen; }

// Where a look leaves few free blocks beside those in use, the program frees by place, and the slab counts again when
// half of the last blocks are free as well. Of others another look would find as little, and walk over as many.
#define DENSE 4

static size_t purge(struct hak_heap *heap, struct hak_slab *slab) {
  set_purgeable(heap, slab, false);
  uint32_t n_used = hak_slab_used(slab);
  slab->seen = (uint16_t)n_used;
  size_t bytes = hak_strip_purge(heap, slab);
  bool has_last_blocks = slab->state == HAK_SLAB_SPARSE && n_used <= hak_slab_last_blocks(slab);
  if (has_last_blocks && hak_strip_carved_blocks(slab) <= DENSE * n_used) {
    slab->rest = n_used / 2;
    slab->countdown = (int32_t)(n_used - slab->rest);
  }
  heap->returned_bytes += bytes;
  return bytes;
}

// What a heap must have counted before it is worth a walk over its SPARSE slabs.
#define WALK_BYTES ((size_t)4 * 1024 * 1024)
#define WALK_BYTES_MIN ((size_t)1024 * 1024)

// Purges the older half of the slabs of `kind` that the heap has counted, which lie behind the younger ones, as far as
// *n_looks go; the number of bytes. The others may be on their way to be empty.
static size_t purge_older_half_of(struct hak_heap *heap, size_t kind, size_t *n_looks) {
  struct hak_bin *bin = &heap->bin[kind];
  size_t returned = 0;
  size_t n_left = bin->n_counted;
  size_t n_older = n_left - n_left / 2;
  for (struct hak_slab *slab = bin->slabs[HAK_SLAB_SPARSE]; n_left != 0 && *n_looks != 0; slab = slab->next) {
    if (!slab->counted) continue;
    if (n_left-- > n_older) continue;
    returned += purge(heap, slab);
    --*n_looks;
  }
  return returned;
}

static size_t purge_older_half(struct hak_heap *heap) {
  size_t returned = 0;
  size_t n_looks = HAK_DECAY_LOOKS;
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) returned += purge_older_half_of(heap, kind, &n_looks);
  return returned;
}

void hak_unused_note_current(struct hak_heap *heap, struct hak_slab *slab) {
  if (slab->purgeable) return;
  slab->purgeable_ms = (uint32_t)heap->set->pool->os->now_ms();
  slab->purgeable = true;
}

// Notes that strips of an AWAKE or SPARSE slab have become free. What the process keeps beyond its limit goes back.
void hak_unused_note(struct hak_heap *heap, struct hak_slab *slab) {
  if (!slab->purgeable) slab->purgeable_ms = (uint32_t)heap->set->pool->os->now_ms();
  set_purgeable(heap, slab, true);
  if (!slab->counted) return;
  struct hak_retain *retain = &heap->set->pool->retain;
  size_t walk_bytes = hak_min(WALK_BYTES, hak_load_relaxed(&retain->min_bytes));
  // Of many threads that keep a little each, the excess may be all of theirs.
  size_t excess = hak_retain_excess(retain);
  walk_bytes = hak_min(walk_bytes, hak_max(excess, WALK_BYTES_MIN));
  if (excess == 0 || heap->counted_bytes < walk_bytes) return;
  hak_retain_gave_back_early(retain, purge_older_half(heap));
}

// Returns to the pool what has no used blocks, and to the operating system the free strips of *n_looks others.
static size_t release_unused_of(struct hak_heap *heap, struct hak_slab *slab, size_t *n_looks) {
  size_t returned = 0;
  struct hak_slab *next;
  for (; slab != NULL; slab = next) {
    next = slab->next;
    if (hak_slab_used(slab) == 0 && hak_load_relaxed(&hak_slab_remote_at(slab->base)->word) == slab->base) {
      hak_bin_unlink(heap, slab);
      hak_slab_release(heap, slab);
    } else if (*n_looks != 0 && is_purgeable(slab)) {
      returned += purge(heap, slab);
      --*n_looks;
    }
  }
  return returned;
}

// Returns the free strips of the current slab of `kind`, if there may be some since the last look: what the thread has
// at hand counts as used.
static size_t purge_current(struct hak_heap *heap, size_t kind, size_t *n_looks) {
  struct hak_slab *slab = heap->bin[kind].current;
  if (slab == NULL || !slab->purgeable || *n_looks == 0) return 0;
  --*n_looks;
  slab->purgeable = false;
  size_t bytes = hak_strip_purge(heap, slab);
  heap->returned_bytes += bytes;
  return bytes;
}

static size_t purge_uncarved(struct hak_heap *heap, struct hak_slab *slab) {
  size_t bytes = hak_strip_purge_uncarved(heap, slab);
  heap->returned_bytes += bytes;
  return bytes;
}

// The same of a PARTLY_CARVED slab, of which no more is looked at: blocks that are not carved count as used there.
static size_t purge_partly_carved(struct hak_heap *heap, struct hak_slab *slab, size_t *n_looks) {
  if (!slab->purgeable || *n_looks == 0) return 0;
  --*n_looks;
  slab->purgeable = false;
  return purge_uncarved(heap, slab);
}

size_t hak_heap_release_unused(struct hak_heap *heap, size_t *n_looks) {
  size_t returned = 0;
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    returned += purge_current(heap, kind, n_looks);
    struct hak_slab *slab = heap->bin[kind].slabs[HAK_SLAB_PARTLY_CARVED];
    for (; slab != NULL; slab = slab->next) returned += purge_partly_carved(heap, slab, n_looks);
    returned += release_unused_of(heap, heap->bin[kind].slabs[HAK_SLAB_AWAKE], n_looks);
    returned += release_unused_of(heap, heap->bin[kind].slabs[HAK_SLAB_SPARSE], n_looks);
    heap->bin[kind].n_fresh = 0;
  }
  hak_spares_release_oldest(heap, heap->n_spares);
  return returned;
}

void hak_heap_release_empty(struct hak_heap *heap) {
  size_t n_looks = 0;
  (void)hak_heap_release_unused(heap, &n_looks);
}

// Decay

// Another thread may have read the clock later than the caller, but not by so much.
#define CLOCKS_APART_MS 60000

static bool is_due(const struct hak_heap *heap, const struct hak_slab *slab, uint64_t now) {
  uint32_t age_ms = (uint32_t)now - slab->purgeable_ms;
  return age_ms >= hak_retain_delay_ms(&heap->set->pool->retain) && age_ms < UINT32_MAX - CLOCKS_APART_MS;
}

// A slab that was looked at is worth another look when an eighth of what was in use then is free: of blocks that are
// freed one by one in a large heap, each would be the reason for a walk over all that are free.
static bool is_worth_a_look(const struct hak_slab *slab) {
  return slab->purgeable || hak_slab_used(slab) + slab->seen / 8 < slab->seen;
}

static size_t decay_list(struct hak_heap *heap, struct hak_slab *slab, uint64_t now, size_t *n_looks) {
  size_t returned = 0;
  for (; slab != NULL && *n_looks != 0; slab = slab->next) {
    if (!is_worth_a_look(slab) || !is_due(heap, slab, now)) continue;
    returned += purge(heap, slab);
    slab->purgeable_ms = (uint32_t)now;
    --*n_looks;
  }
  return returned;
}

static bool sleeps(const struct hak_heap *heap) {
  return heap->cache != NULL && hak_load_relaxed(&heap->seat.owner_id) == HAK_NO_OWNER;
}

// A thread that goes on is about to take what others have freed, so that only what it has not carved goes back.
static size_t decay_current(struct hak_heap *heap, size_t kind, uint64_t now, size_t *n_looks) {
  struct hak_slab *slab = heap->bin[kind].current;
  if (slab == NULL || !slab->purgeable || !is_due(heap, slab, now) || *n_looks == 0) return 0;
  if (sleeps(heap)) return purge_current(heap, kind, n_looks);
  --*n_looks;
  slab->purgeable_ms = (uint32_t)now;
  return purge_uncarved(heap, slab);
}

bool hak_heap_decay(struct hak_heap *heap, uint64_t now, size_t *n_looks) {
  hak_outbox_flush(&heap->seat);
  bool drained = hak_mail_drain(heap, HAK_DRAIN_SOME);
  size_t returned = 0;
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    // Nobody has counted these as unused.
    (void)decay_current(heap, kind, now, n_looks);
    struct hak_slab *slab = heap->bin[kind].slabs[HAK_SLAB_PARTLY_CARVED];
    for (; slab != NULL; slab = slab->next) {
      if (is_due(heap, slab, now)) (void)purge_partly_carved(heap, slab, n_looks);
    }
    returned += decay_list(heap, heap->bin[kind].slabs[HAK_SLAB_AWAKE], now, n_looks);
    returned += decay_list(heap, heap->bin[kind].slabs[HAK_SLAB_SPARSE], now, n_looks);
  }
  hak_retain_gave_back_late(&heap->set->pool->retain, returned);
  if (!drained) *n_looks = 0;
  if (*n_looks == 0) {
    // Soon, but not with the next call: it walks over what was looked at before.
    hak_store_relaxed(&heap->decayed_ms, hak_decay_again_ms(&heap->set->pool->retain, now));
    return false;
  }
  hak_spares_release_oldest(heap, hak_min(heap->n_spares, heap->least_spares));
  heap->least_spares = heap->n_spares;
  hak_store_relaxed(&heap->decayed_ms, now);
  return true;
}

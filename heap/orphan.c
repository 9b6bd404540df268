// The heap set: heaps that no thread owns, and how threads come by theirs and leave them.
#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "heap/heap_internal.h"
#include "platform/lock.h"
#include "platform/report.h"

// Mailed slabs that may wait with the heaps that no thread owns, all together: 4 MiB of address space, or a slab for
// each such heap, so that no more than a few are looked into per mail, which is of four slabs or more.
#define MAILED_SLABS_MAX 64

void hak_heap_set_init(struct hak_heap_set *set, struct hak_pool *pool, uint32_t refill_count, bool diet) {
  if (HAK_CONFIG_HARDENED) hak_secret_make();
  *set = (struct hak_heap_set){.pool = pool, .refill_count = refill_count, .diet = diet};
  hak_mutex_init(&set->visit_lock);
  hak_mutex_init(&set->lock);
}

// The public heap

static void public_note(struct hak_heap_set *set, size_t kind, bool has_slabs) {
  uint64_t bit = (uint64_t)1 << (kind % 64);
  uint64_t *kinds = &set->public_kinds[kind / 64];
  uint64_t found = hak_load_relaxed(kinds);  // only written under the set's lock
  hak_store_relaxed(kinds, has_slabs ? found | bit : found & ~bit);
}

void hak_slab_change_owner(struct hak_slab *slab, struct hak_heap *heap) {
  struct hak_slab_remote *remote = hak_slab_remote_at(slab->base);
  if (slab->counted) {
    struct hak_heap *before = hak_load_relaxed(&remote->owner);
    --before->bin[slab->kind].n_counted;
    before->counted_bytes -= hak_slab_dirty_bytes(slab);
    ++heap->bin[slab->kind].n_counted;
    heap->counted_bytes += hak_slab_dirty_bytes(slab);
  }
  hak_store_relaxed(&remote->owner, heap);
  hak_registry_set(slab->base, hak_kind_run_slabs(slab->kind), hak_entry_make(heap->id, slab->kind));
  if (heap == heap->set->public_heap) public_note(heap->set, slab->kind, true);
}

static struct hak_slab *public_take_locked(struct hak_heap_set *set, struct hak_heap *heap, size_t kind)
    HAK_REQUIRES(set->lock) {
  struct hak_heap *public_heap = set->public_heap;
  struct hak_slab *const *slabs = public_heap->bin[kind].slabs;
  struct hak_slab *slab = slabs[HAK_SLAB_AWAKE];
  if (slab == NULL) slab = slabs[HAK_SLAB_SPARSE];
  if (slab == NULL) slab = slabs[HAK_SLAB_PARTLY_CARVED];
  if (slab == NULL) {
    public_note(set, kind, false);
  } else {
    hak_bin_unlink(public_heap, slab);
    hak_slab_change_owner(slab, heap);
  }
  return slab;
}

// Orphans

// What only a successor would use, about.
static size_t bytes_at_hand(const struct hak_heap *heap) {
  size_t bytes = 0;
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    const struct hak_slab *slab = heap->bin[kind].current;
    if (slab != NULL) bytes += hak_slab_dirty_bytes(slab);
  }
  return bytes;
}

static void link_orphan_locked(struct hak_heap_set *set, struct hak_heap *heap) HAK_REQUIRES(set->lock) {
  struct hak_heap *newest = set->newest_orphan;
  heap->newer = NULL;
  heap->older = newest;
  if (newest != NULL) newest->newer = heap;
  if (newest == NULL) set->oldest_orphan = heap;
  hak_store_relaxed(&set->newest_orphan, heap);
  heap->orphan_bytes = bytes_at_hand(heap);
  hak_retain_add_unused(&set->pool->retain, heap->orphan_bytes);
}

static void unlink_orphan_locked(struct hak_heap_set *set, struct hak_heap *heap) HAK_REQUIRES(set->lock) {
  if (heap->older != NULL) heap->older->newer = heap->newer;
  if (heap->newer != NULL) heap->newer->older = heap->older;
  if (set->oldest_orphan == heap) set->oldest_orphan = heap->newer;
  if (set->newest_orphan == heap) hak_store_relaxed(&set->newest_orphan, heap->older);
  hak_retain_sub_unused(&set->pool->retain, heap->orphan_bytes);
}

static void give_to_public_locked(struct hak_heap_set *set, struct hak_heap *heap, struct hak_slab **list)
    HAK_REQUIRES(set->lock) {
  struct hak_slab *slab;
  while ((slab = *list) != NULL) {
    hak_bin_unlink(heap, slab);
    hak_slab_change_owner(slab, set->public_heap);
    hak_bin_link(set->public_heap, slab);
  }
}

// Makes a husk of an orphan.
static void dissolve_locked(struct hak_heap_set *set, struct hak_heap *heap) HAK_REQUIRES(set->lock) {
  unlink_orphan_locked(set, heap);
  hak_recent_return(&heap->at_hand);
  hak_bins_return_current(heap, &heap->at_hand);
  (void)hak_mail_drain(heap, HAK_DRAIN_ALL);
  // Free strips have time: whoever is here has come for a slab, and others wait for the lock.
  hak_heap_release_empty(heap);
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    give_to_public_locked(set, heap, &heap->bin[kind].slabs[HAK_SLAB_AWAKE]);
    give_to_public_locked(set, heap, &heap->bin[kind].slabs[HAK_SLAB_SPARSE]);
    give_to_public_locked(set, heap, &heap->bin[kind].slabs[HAK_SLAB_PARTLY_CARVED]);
  }
  heap->older = set->husks;
  set->husks = heap;
}

// Dissolves the oldest orphan if it has been one for so long.
static bool dissolve_old_locked(struct hak_heap_set *set, uint64_t now, uint64_t age_ms) HAK_REQUIRES(set->lock) {
  struct hak_heap *oldest = set->oldest_orphan;
  if (oldest == NULL || oldest->orphaned_ms + age_ms > now) return false;
  dissolve_locked(set, oldest);
  return true;
}

// How long an orphan is left to be adopted though its memory might be of use.
static uint64_t grace_ms(const struct hak_heap_set *set) {
  return set->diet ? 0 : hak_min(HAK_HEAP_ORPHAN_GRACE_MS, hak_retain_delay_ms(&set->pool->retain));
}

// Orphans beyond what the process keeps; two at most for each that comes, so that they become fewer.
static void dissolve_excess_locked(struct hak_heap_set *set, uint64_t now) HAK_REQUIRES(set->lock) {
  for (int i = 0; i < 2 && hak_retain_excess(&set->pool->retain) != 0; ++i) {
    if (!dissolve_old_locked(set, now, grace_ms(set))) return;
  }
}

static void collect_mail_locked(struct hak_heap_set *set) HAK_REQUIRES(set->lock) {
  hak_store_relaxed(&set->n_mailed, 0);
  for (struct hak_heap *heap = set->newest_orphan; heap != NULL; heap = heap->older) {
    if (!hak_has_mail(heap)) continue;
    // A slab that wakes goes to the public heap, and recent blocks are the heap's own.
    hak_recent_return(&heap->at_hand);
    (void)hak_mail_drain(heap, HAK_DRAIN_ALL);
  }
  for (struct hak_heap *heap = set->husks; heap != NULL; heap = heap->older) (void)hak_mail_drain(heap, HAK_DRAIN_ALL);
  // Last, since misdirected mail is sent on to it.
  if (set->public_heap != NULL) (void)hak_mail_drain(set->public_heap, HAK_DRAIN_ALL);
}

HAK_COLD void hak_threadless_mailed(struct hak_heap_set *set, uint32_t n_slabs) {
  uint32_t n = hak_add_relaxed(&set->n_mailed, n_slabs) + n_slabs;
  if (n < hak_max(MAILED_SLABS_MAX, hak_load_relaxed(&set->n_threadless))) return;
  hak_lock(&set->lock);
  collect_mail_locked(set);
  hak_unlock(&set->lock);
}

struct hak_slab *hak_public_take(struct hak_heap *heap, size_t kind) {
  struct hak_heap_set *set = heap->set;
  bool in_public = (hak_load_relaxed(&set->public_kinds[kind / 64]) >> (kind % 64) & 1) != 0;
  bool has_mail = hak_load_relaxed(&set->n_mailed) > hak_load_relaxed(&set->n_threadless);
  bool nothing = !in_public && !has_mail && hak_load_relaxed(&set->newest_orphan) == NULL;
  if (nothing) return NULL;
  hak_lock(&set->lock);
  struct hak_slab *slab = public_take_locked(set, heap, kind);
  if (slab == NULL && has_mail) {
    collect_mail_locked(set);
    slab = public_take_locked(set, heap, kind);
  }
  if (slab == NULL && set->oldest_orphan != NULL) {
    if (dissolve_old_locked(set, set->pool->os->now_ms(), grace_ms(set))) slab = public_take_locked(set, heap, kind);
  }
  hak_unlock(&set->lock);
  return slab;
}

// Attach and detach

static const struct hak_at_hand nothing_at_hand = HAK_AT_HAND_NOTHING;

// What a registry entry has room for.
#define HAK_HEAPS_MAX (HAK_NO_OWNER / HAK_OWNER_STEP - 1)

static struct hak_heap *new_heap_locked(struct hak_heap_set *set) HAK_REQUIRES(set->lock) {
  if (set->n_heaps == HAK_HEAPS_MAX) return NULL;
  struct hak_heap *heap = hak_pool_meta_alloc(set->pool, sizeof *heap);
  if (heap == NULL) return NULL;
  heap->set = set;
  heap->id = ++set->n_heaps * HAK_OWNER_STEP;
  heap->at_hand = nothing_at_hand;
  heap->seat.owner_id = HAK_NO_OWNER;
  return heap;
}

static bool make_public_heap_locked(struct hak_heap_set *set) HAK_REQUIRES(set->lock) {
  struct hak_heap *heap = new_heap_locked(set);
  if (heap == NULL) return false;
  hak_store_relaxed(&heap->orphan, 1);
  hak_store_relaxed(&set->n_threadless, 1);
  set->public_heap = heap;
  return true;
}

static struct hak_heap *adopt_locked(struct hak_heap_set *set) HAK_REQUIRES(set->lock) {
  if (set->public_heap == NULL && !make_public_heap_locked(set)) return NULL;
  struct hak_heap *heap = set->newest_orphan;
  if (heap != NULL) {
    unlink_orphan_locked(set, heap);
  } else if ((heap = set->husks) != NULL) {
    set->husks = heap->older;
  } else {
    return new_heap_locked(set);
  }
  hak_store_relaxed(&heap->orphan, 0);
  hak_sub_relaxed(&set->n_threadless, 1);
  return heap;
}

static void link_attached(struct hak_heap_set *set, struct hak_heap *heap) {
  heap->newer = NULL;
  heap->older = set->newest_attached;
  if (heap->older != NULL) heap->older->newer = heap;
  set->newest_attached = heap;
  hak_add_relaxed(&set->n_attached, 1);
}

static void unlink_attached(struct hak_heap_set *set, struct hak_heap *heap) {
  if (heap->older != NULL) heap->older->newer = heap->newer;
  if (heap->newer != NULL) heap->newer->older = heap->older;
  if (set->newest_attached == heap) set->newest_attached = heap->older;
  if (set->next_visited == heap) set->next_visited = heap->older;
  hak_sub_relaxed(&set->n_attached, 1);
}

bool hak_heap_attach(struct hak_heap_set *set, struct hak_cache *cache) {
  hak_lock(&set->visit_lock);
  hak_lock(&set->lock);
  struct hak_heap *heap = adopt_locked(set);
  hak_unlock(&set->lock);
  if (heap != NULL) {
    heap->life = hak_life_own();
    cache->at_hand = heap->at_hand;
    cache->heap = heap;
    cache->seat = &heap->seat;
    hak_store_relaxed(&heap->seat.owner_id, heap->id);
    heap->cache = cache;
    link_attached(set, heap);
  }
  hak_unlock(&set->visit_lock);
  return heap != NULL;
}

// Makes an orphan of a heap, which has at hand what its thread had.
static void orphan(struct hak_heap *heap) {
  struct hak_heap_set *set = heap->set;
  hak_outbox_flush(&heap->seat);
  hak_store_relaxed(&heap->seat.owner_id, HAK_NO_OWNER);
  heap->cache = NULL;
  unlink_attached(set, heap);

  uint64_t now = set->pool->os->now_ms();
  hak_lock(&set->lock);
  heap->orphaned_ms = now;
  hak_store_relaxed(&heap->orphan, 1);
  hak_add_relaxed(&set->n_threadless, 1);
  link_orphan_locked(set, heap);
  (void)dissolve_old_locked(set, now, hak_retain_delay_ms(&set->pool->retain));
  // In the child of a fork all heaps become orphans at once, and mostly it ends soon.
  if (!hak_lock_all_held) dissolve_excess_locked(set, now);
  hak_unlock(&set->lock);
}

void hak_heap_abandon(struct hak_cache *cache) {
  struct hak_heap *heap = cache->heap;
  heap->at_hand = cache->at_hand;
  cache->at_hand = nothing_at_hand;
  cache->heap = NULL;
  cache->seat = &hak_no_seat;
  orphan(heap);
}

void hak_heap_abandon_lost(struct hak_heap *heap) {
  heap->at_hand = nothing_at_hand;
  hak_bins_return_current(heap, &heap->at_hand);
  orphan(heap);
}

void hak_heap_detach(struct hak_cache *cache) {
  struct hak_heap_set *set = cache->heap->set;
  hak_lock(&set->visit_lock);
  hak_heap_abandon(cache);
  hak_unlock(&set->visit_lock);
}

void hak_heap_forget(struct hak_heap *heap) {
  unlink_attached(heap->set, heap);
  heap->cache = NULL;
}

// Decay and trim

// To dissolve an orphan takes as long as so many looks at slabs.
#define LOOKS_PER_ORPHAN 4

void hak_threadless_decay(struct hak_heap_set *set, uint64_t now, size_t *n_looks) {
  hak_lock(&set->lock);
  while (*n_looks >= LOOKS_PER_ORPHAN && dissolve_old_locked(set, now, hak_retain_delay_ms(&set->pool->retain))) {
    *n_looks -= LOOKS_PER_ORPHAN;
  }
  // An orphan that is due waits for the next call, which comes soon.
  if (*n_looks < LOOKS_PER_ORPHAN) *n_looks = 0;
  collect_mail_locked(set);
  if (set->public_heap != NULL) (void)hak_heap_decay(set->public_heap, now, n_looks);
  hak_unlock(&set->lock);
}

size_t hak_threadless_trim(struct hak_heap_set *set) {
  size_t returned = 0;
  size_t n_looks = SIZE_MAX;
  hak_lock(&set->lock);
  while (set->oldest_orphan != NULL) dissolve_locked(set, set->oldest_orphan);
  collect_mail_locked(set);
  if (set->public_heap != NULL) returned = hak_heap_release_unused(set->public_heap, &n_looks);
  hak_unlock(&set->lock);
  return returned;
}

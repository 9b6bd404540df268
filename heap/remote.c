// Remote frees: the outbox that gathers them, their publication, and the owner's mail.
//
// docs/concurrency.md has the protocol as a whole. In short: a slab is `in mail` from the first publication on its
// remote list until its owner has collected that list, and a slab in mail is never released. So a publisher may touch
// the slab's shared descriptor until its mail is drained, although its own blocks may be reused at once.
#include "base/atomic.h"
#include "base/bits.h"
#include "heap/heap_inline.h"
#include "heap/heap_internal.h"
#include "platform/lock.h"
#include "platform/report.h"

// What one slot may hold back: blocks, and bytes of them.
#define OUTBOX_BLOCKS_MAX 32
#define OUTBOX_BYTES_MAX ((size_t)64 * 1024)

// To collect a slab takes as long as so many links.
#define COLLECT_LINKS 128

// Mail

// Links a slab that is in mail into the mail of its owner, and returns that. Whoever gets it by mistake, since the slab
// changes hands right now, sends it on.
static struct hak_heap *mail_push(struct hak_slab_remote *remote) {
  struct hak_heap *heap = hak_load_relaxed(&remote->owner);
  struct hak_slab_remote *head = hak_load_relaxed(&heap->mail);
  do {
    remote->mail_next = head;
  } while (!hak_cas_release(&heap->mail, &head, remote));
  return heap;
}

// The number of links that it has followed.
static size_t append_free(struct hak_slab *slab, uintptr_t head) {
  size_t n_links = 0;
  if (slab->free != slab->base) {
    uintptr_t tail = head;
    for (uintptr_t next = hak_link_get(tail); next != slab->base; next = hak_link_get(tail), ++n_links) tail = next;
    hak_link_set(tail, slab->free);
  }
  slab->free = head;
  return n_links;
}

// The number of links that it has followed.
static size_t collect(struct hak_heap *heap, struct hak_slab_remote *remote) {
  struct hak_slab *slab = hak_slab_at(remote->base);
  // Acquire: the links of the blocks. Release: the slab's mail_next may be used again by who finds it not in mail.
  uint64_t word = hak_exchange_acq_rel(&remote->word, slab->base);
  uint32_t n = (uint32_t)(word >> HAK_REMOTE_COUNT_SHIFT);
  if (slab->state == HAK_SLAB_CURRENT) {
    if (n == 0) return 0;
    hak_unused_note_current(heap, slab);
    return append_free(slab, HAK_REMOTE_HEAD(word));
  }
  HAK_CHECK(n <= hak_slab_used(slab));
  if (n == 0) {
    // Collected before by take_remote; meanwhile it may have been emptied, and waited for this.
    if (hak_slab_used(slab) == 0) hak_slab_emptied(heap, slab);
    return 0;
  }
  // The links of a slab that is now wholly free are not needed, and not worth a walk.
  size_t n_links = n == hak_slab_used(slab) ? 0 : append_free(slab, HAK_REMOTE_HEAD(word));
  hak_slab_credit(heap, slab, n);
  return n_links;
}

bool hak_mail_drain(struct hak_heap *heap, size_t max_links) {
  size_t n_links = 0;
  while (hak_has_mail(heap)) {
    if (n_links >= max_links) return false;
    struct hak_slab_remote *remote = heap->opened_mail;
    if (remote == NULL) remote = hak_exchange_acquire(&heap->mail, NULL);
    heap->opened_mail = remote->mail_next;
    if (hak_load_relaxed(&remote->owner) == heap) {
      n_links += COLLECT_LINKS + collect(heap, remote);
    } else {
      uint32_t n_slabs = remote->n_slabs;
      // Counted, so that somebody looks; not collected, since the caller may hold the set's lock.
      if (hak_load_relaxed(&mail_push(remote)->orphan) != 0) hak_add_relaxed(&heap->set->n_mailed, n_slabs);
    }
  }
  return true;
}

// Publication

void hak_remote_publish(uintptr_t base, uintptr_t head, uintptr_t tail, uint32_t n) {
  struct hak_slab_remote *remote = hak_slab_remote_at(base);
  uint64_t found = hak_load_relaxed(&remote->word);
  uint64_t wanted;
  do {
    hak_link_set(tail, HAK_REMOTE_HEAD(found));
    uint64_t count = (found >> HAK_REMOTE_COUNT_SHIFT) + n;
    wanted = head | count << HAK_REMOTE_COUNT_SHIFT | HAK_REMOTE_IN_MAIL;
    // Release: the links. Acquire: pairs with collect's release, see there.
  } while (!hak_cas_acq_rel(&remote->word, &found, wanted));
  if ((found & HAK_REMOTE_IN_MAIL) != 0) return;
  uint32_t n_slabs = remote->n_slabs;  // once mailed, the slab is no longer ours to look at
  struct hak_heap *heap = mail_push(remote);
  if (HAK_UNLIKELY(hak_load_relaxed(&heap->orphan) != 0)) hak_threadless_mailed(heap->set, n_slabs);
}

// Outbox

static void publish_slot(struct hak_outbox_slot *slot) {
  if (slot->base == 0) return;
  uintptr_t base = slot->base;
  slot->base = 0;
  hak_remote_publish(base, slot->head, slot->tail, slot->count);
}

void hak_outbox_flush(struct hak_seat *seat) {
  for (; seat->outbox_used != 0; seat->outbox_used &= seat->outbox_used - 1) {
    publish_slot(&seat->outbox[__builtin_ctzl(seat->outbox_used)]);
  }
}

// How many blocks of `kind` a slot holds back. Sizes by their power of two: exact enough for a bound.
static uint32_t slot_limit(size_t kind) {
  bool is_mid = kind >= HAK_KIND_MID_FIRST;
  unsigned size_shift = is_mid ? hak_kind_32_blocks_shifts[kind] - 6u : 4 + hak_log2_floor(kind);
  return (uint32_t)hak_min(hak_max(OUTBOX_BYTES_MAX >> size_shift, 1), OUTBOX_BLOCKS_MAX);
}

static void begin(struct hak_seat *seat, struct hak_outbox_slot *slot, uintptr_t base, uintptr_t block, size_t kind) {
  hak_block_poison(block, kind);
  publish_slot(slot);
  *slot = (struct hak_outbox_slot){.base = base, .head = block, .tail = block, .count = 1, .limit = slot_limit(kind)};
  seat->outbox_used |= (uint64_t)1 << (slot - seat->outbox);
  ++seat->outbox_clock;
}

// The block that is added always stays until the next one comes: as long as it is here nobody can have been given it
// again, so that to find it here is certain proof of a double free.
void hak_outbox_add(struct hak_cache *cache, void *p, size_t kind, const char *function) {
  uintptr_t block = (uintptr_t)p;
  uintptr_t base = hak_kind_run_base(kind, block);
  if (HAK_UNLIKELY(cache->heap == NULL)) {
    // This thread has no end at which what it gathers would be flushed.
    uint64_t word = hak_load_relaxed(&hak_slab_remote_at(base)->word);
    if (HAK_UNLIKELY(HAK_REMOTE_HEAD(word) == block)) hak_fatal_misuse(function, p, HAK_MISUSE_DOUBLE_FREE);
    hak_block_poison(block, kind);
    // A fork must not catch this thread halfway, so it takes the lock that forks take. (A thread with a heap is inside
    // of it then, and a fork waits until it has left.)
    struct hak_heap_set *set = hak_load_relaxed(&hak_slab_remote_at(base)->owner)->set;
    hak_lock(&set->visit_lock);
    hak_remote_publish(base, block, block, 1);
    hak_unlock(&set->visit_lock);
    return;
  }
  struct hak_seat *seat = cache->seat;
  struct hak_outbox_slot *slot = hak_outbox_slot_of(seat, base);
  if (HAK_UNLIKELY(slot->base == base && slot->head == block)) {
    hak_heap_fatal(cache, function, p, HAK_MISUSE_DOUBLE_FREE);
  }
  bool due = hak_outbox_is_due(seat);
  if (hak_outbox_has_room(slot, base)) {
    hak_outbox_gather(seat, slot, p);
  } else {
    begin(seat, slot, base, block, kind);
  }
  if (due) {
    struct hak_outbox_slot *oldest = &seat->outbox[seat->outbox_clock / HAK_OUTBOX_AGE % HAK_OUTBOX_SLOTS];
    if (oldest != slot) publish_slot(oldest);
  }
}

HAK_NOINLINE void hak_outbox_begin_and_leave(struct hak_seat *seat, void *p, size_t kind) {
  uintptr_t block = (uintptr_t)p;
  uintptr_t base = hak_kind_run_base(kind, block);
  begin(seat, hak_outbox_slot_of(seat, base), base, block, kind);
  hak_heap_leave(seat);
}

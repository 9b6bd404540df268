// What the files of heap/ share.
#ifndef HAKMEM_HEAP_HEAP_INTERNAL_H_
#define HAKMEM_HEAP_HEAP_INTERNAL_H_

#include "heap/heap.h"
#include "heap/heap_inline.h"

// heap.c: slabs of one owner. The caller owns the heap, or holds the set's lock if it is an orphan or the public heap.

// Puts a slab into its bin's list of its state, and takes it out.
void hak_bin_link(struct hak_heap *heap, struct hak_slab *slab);
void hak_bin_unlink(struct hak_heap *heap, struct hak_slab *slab);

// Notes that `n` blocks of a slab that is not CURRENT have become free, which may change its state or empty it.
void hak_slab_credit(struct hak_heap *heap, struct hak_slab *slab, uint32_t n);

// Returns a slab without used blocks to the pool, unless mail for it is under way or it is worth keeping.
void hak_slab_emptied(struct hak_heap *heap, struct hak_slab *slab);

// Gives the blocks in *list, which becomes empty, back to the bin's current slab, which is current no more.
void hak_bin_return_current(struct hak_heap *heap, size_t kind, uintptr_t *list);

// The same of all kinds, with the lists of `at_hand`.
void hak_bins_return_current(struct hak_heap *heap, struct hak_at_hand *at_hand);

// Gives the recent blocks of all kinds back to their slabs; each kind has none until its next refill.
void hak_recent_return(struct hak_at_hand *at_hand);

// supply.c: slabs from the pool and back. The caller owns the heap.

// A slab without blocks in use, in no list: a spare, or one of the pool's. NULL when memory has run out.
struct hak_slab *hak_slab_fresh(struct hak_heap *heap, const struct hak_class *geometry);

// Gives back a slab without used blocks that is in no list: it becomes a spare, or the pool's.
void hak_slab_release(struct hak_heap *heap, struct hak_slab *slab);

// Gives the `n` oldest spares to the pool, n_spares at most.
void hak_spares_release_oldest(struct hak_heap *heap, size_t n);

// unused.c: memory that no block uses. The caller owns the heap.

// Notes that strips of an AWAKE or SPARSE slab have become free. What the process keeps beyond its limit goes back.
void hak_unused_note(struct hak_heap *heap, struct hak_slab *slab);

// Notes that a CURRENT or PARTLY_CARVED slab has strips that hold pages for nothing, or that other threads have freed
// blocks of a CURRENT one.
void hak_unused_note_current(struct hak_heap *heap, struct hak_slab *slab);

// Notes that a slab is about to be used again, or leaves the heap.
void hak_unused_forget(struct hak_heap *heap, struct hak_slab *slab);

// Returns all slabs without used blocks, and the spares, to the pool, and the free strips of the others, CURRENT ones
// among them, to the operating system, but for those of slabs beyond *n_looks, of which each look takes one; the number
// of bytes that the latter are.
size_t hak_heap_release_unused(struct hak_heap *heap, size_t *n_looks);

// Returns only the former: a few for each kind, so that it does not take long.
void hak_heap_release_empty(struct hak_heap *heap);

// The time of the last decay to note where one was left unfinished, so that the next is due after HAK_DECAY_REST_MS.
static inline uint64_t hak_decay_again_ms(const struct hak_retain *retain, uint64_t now) {
  uint64_t interval_ms = hak_retain_look_interval_ms(retain);
  return hak_max(now, interval_ms) - interval_ms + HAK_DECAY_REST_MS;
}

// What hak_heap_tick does for the slabs and spares that are due at the time `now`. False, and *n_looks, of which each
// look at a slab takes one, is 0, if that was not enough, or there was much mail: then the heap is due again after
// HAK_DECAY_REST_MS.
bool hak_heap_decay(struct hak_heap *heap, uint64_t now, size_t *n_looks);

// strip.c: the parts of a slab, and which of them hold pages. The caller owns the slab.

// Puts a part of the CURRENT slab whose blocks are in no list into *list, in address order. False if there is none.
bool hak_strip_carve(struct hak_heap *heap, struct hak_slab *slab, uintptr_t *list);

// Makes a slab without used blocks start anew, so that its blocks are handed out in address order.
void hak_strip_restart(struct hak_slab *slab);

// Returns the pages of uncarved strips that no block reaches into to the operating system; the number of bytes.
size_t hak_strip_purge_uncarved(struct hak_heap *heap, struct hak_slab *slab);

// The number of carved blocks.
uint32_t hak_strip_carved_blocks(const struct hak_slab *slab);

// Returns the pages of a slab in which no block is in use, or at hand: whole strips, which become uncarved, and
// in the others what lies inside of free blocks. The number of bytes of the former. Cost: a walk over the free blocks,
// and a system call for each range of pages.
size_t hak_strip_purge(struct hak_heap *heap, struct hak_slab *slab);

// remote.c: mail.

// Adds `n` blocks, linked from `head` to `tail`, to the remote list of the run at `base`.
void hak_remote_publish(uintptr_t base, uintptr_t head, uintptr_t tail, uint32_t n);

// Gathers a block that another heap owns.
void hak_outbox_add(struct hak_cache *cache, void *p, size_t kind, const char *function);

// Publishes all blocks that wait in the outbox.
void hak_outbox_flush(struct hak_seat *seat);

// Whether there are slabs in the heap's mail that were not collected.
static inline bool hak_has_mail(const struct hak_heap *heap) {
  return heap->opened_mail != NULL || hak_load_relaxed(&heap->mail) != NULL;
}

// Collects slabs in the heap's mail until about `max_links` links of blocks were followed, each perhaps a cache miss.
// Whether these were all.
bool hak_mail_drain(struct hak_heap *heap, size_t max_links);

// For a thread that wants to go on, and for all that there is.
#define HAK_DRAIN_SOME ((size_t)4096)
#define HAK_DRAIN_ALL SIZE_MAX

// visit.c: who works on a heap.

// Begins all that a thread does with its heap, but for the hot paths; hak_heap_leave ends it. Waits for a visitor. The
// cache has a heap.
void hak_heap_enter(struct hak_cache *cache);

// Stops the program as hak_fatal_misuse does. The caller is inside its heap, and leaves it first: a handler of SIGABRT,
// or another thread meanwhile, may fork.
HAK_COLD HAK_NORETURN void hak_heap_fatal(struct hak_cache *cache, const char *function, const void *p,
                                          const char *reason);

// orphan.c: heaps without a thread.

// Makes an orphan of the cache's heap, which nobody works on any more. Called with the visit lock.
void hak_heap_abandon(struct hak_cache *cache);

// Makes an orphan of a heap whose thread has ended without giving it up. What it had at hand is lost, with its cache:
// these blocks stay in use. Called with the visit lock, of a visitor to whom the heap is open.
void hak_heap_abandon_lost(struct hak_heap *heap);

// Gives up a heap whose thread does not exist any more, and was perhaps at work on it. Called with the visit lock.
void hak_heap_forget(struct hak_heap *heap);

// Returns what has stayed unused for the decay time of the heaps that no thread owns; `n_looks` as for hak_heap_decay.
void hak_threadless_decay(struct hak_heap_set *set, uint64_t now, size_t *n_looks);

// Returns all that is unused of the heaps that no thread owns; the number of bytes.
size_t hak_threadless_trim(struct hak_heap_set *set);

// Notes that a run of `n_slabs` slabs was mailed to a heap that no thread owned just now. When there is enough of such
// mail, collects all of it.
void hak_threadless_mailed(struct hak_heap_set *set, uint32_t n_slabs);

// Gives a slab to another heap. The caller owns the slab, and holds the set's lock if either heap has no thread.
void hak_slab_change_owner(struct hak_slab *slab, struct hak_heap *heap);

// Takes a slab of `kind` with free blocks that a thread left behind, or NULL.
struct hak_slab *hak_public_take(struct hak_heap *heap, size_t kind);

#endif  // HAKMEM_HEAP_HEAP_INTERNAL_H_

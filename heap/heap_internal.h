// What the files of heap/ share.
#ifndef HAKMEM_HEAP_HEAP_INTERNAL_H_
#define HAKMEM_HEAP_HEAP_INTERNAL_H_

#include "heap/heap.h"

// heap.c: slabs of one owner. The caller owns the heap, or holds the set's lock if it is an orphan or the public heap.

// Puts an AWAKE slab into its bin, and takes it out.
void hak_bin_link(struct hak_heap *heap, struct hak_slab *slab);
void hak_bin_unlink(struct hak_heap *heap, struct hak_slab *slab);

// Notes that `n` blocks of a slab that is not CURRENT have become free, which may wake or empty it.
void hak_slab_credit(struct hak_heap *heap, struct hak_slab *slab, uint32_t n);

// Returns an AWAKE slab without used blocks to the pool, unless mail for it is under way or it is worth keeping.
void hak_slab_emptied(struct hak_heap *heap, struct hak_slab *slab);

// Gives the blocks in *list, which becomes empty, back to the bin's current slab, which is current no more.
void hak_bin_return_current(struct hak_heap *heap, size_t kind, uintptr_t *list);

// Returns all awake slabs without used blocks, and the spares, to the pool.
void hak_heap_release_empty(struct hak_heap *heap);

// remote.c: mail.

// Adds `n` blocks, linked from `head` to `tail`, to the remote list of the run at `base`.
void hak_remote_publish(uintptr_t base, uintptr_t head, uintptr_t tail, uint32_t n);

// Gathers a block that another heap owns.
void hak_outbox_add(struct hak_cache *cache, void *p, size_t kind, const char *function);

// Collects all slabs in the heap's mail.
void hak_mail_drain(struct hak_heap *heap);

// orphan.c: heaps without a thread.

// Notes that a run of `n_slabs` slabs was mailed to a heap that no thread owned just now. When there is enough of such
// mail, collects all of it.
void hak_threadless_mailed(struct hak_heap_set *set, uint32_t n_slabs);

// Gives a slab to another heap. The caller owns the slab, and holds the set's lock if either heap has no thread.
void hak_slab_change_owner(struct hak_slab *slab, struct hak_heap *heap);

// Takes an awake slab of `kind` that a thread left behind, or NULL.
struct hak_slab *hak_public_take(struct hak_heap *heap, size_t kind);

#endif  // HAKMEM_HEAP_HEAP_INTERNAL_H_

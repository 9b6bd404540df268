// A slab as the block tiers (Tiny and Mid) use it: a run of 64 KiB slabs, four at least, cut into blocks of one size.
// Internal to heap/ and the tiers above it.
//
// A run with blocks of B bytes, n_blocks of them, in 16 to 64 strips of equal length, of 4 KiB or more, in each of
// which one or more blocks start:
//
//   base        first                                                                                base + run bytes
//   +-----------+---------+---------+-------|-+---------+---------+----|----+------ ... ------|---------+----+
//   |  never    | block 0 | block 1 | block 2 |         |         |         |                           |tail|
//   +-----------+---------+---------+-------|-+---------+---------+----|----+------ ... ------|---------+----+
//                  strip 0                  |         strip 1          |       strips 2 ..    |  last strip
//
// A strip is `uncarved` until the first of the blocks that start in it is handed out, and again after its pages were
// given back to the operating system while no block in it was in use (strip.c). The blocks that start in an uncarved
// strip are in no list. A strip is `dirty` if it may hold pages, other than those of a block that reaches into it from
// the strip before, which is dirty then: so a slab without a dirty strip is zero.
//
// A free block holds the address of the next free block in its first 8 bytes; the last one holds `base`. So `base` ends
// every list, and no block may start there, nor at any other multiple of 256 KiB, the length of the shortest runs: let
// L be the largest power of two that divides B; then `first` is L in such a run, and L / 2 in a longer one, where
// L + i * B could be such a multiple but L / 2 + i * B cannot. Blocks are aligned to `first`. Where B is a power of two
// that costs the address space of one block, otherwise mostly nothing. In return
//   - a list is empty exactly if the low 18 bits of its head are zero, and
//   - the head of a list of Tiny, empty or not, always tells which slab the list belongs to: (head ^ p) < 256 KiB says
//     that p lies in that slab, head ^ p == 0 that p was freed just before. One XOR serves three checks in the hot path
//     of free.
//
// States, all under the owner's control:
//
//   CURRENT  the slab of its kind that malloc takes from; the thread has (most of) its free blocks at hand. Ceases to
//            be so when it is full, or its kind is not in use any more
//   ASLEEP   every block was handed out when it ceased to be current; fewer than an eighth are free
//   PARTLY   the same of the blocks that were carved; some strips are not. Becomes current when there is nothing else,
//   carved   so that memory that holds pages is used before more is touched
//   AWAKE    an eighth of its blocks or more are free; becomes current first
//   SPARSE   an eighth of its blocks or less are in use; becomes current when no AWAKE one is there, so that it can
//            become empty. When it has come to its last blocks (a sixteenth at most), its free strips are worth a look
//
//            fresh                 list empty
//   (pool) --------> CURRENT --------------------> ASLEEP, PARTLY ------> AWAKE ------> SPARSE ------> (pool) when
//   empty
//                      ^                                |               |              |
//                      +--------------------------------+---------------+--------------+
#ifndef HAKMEM_HEAP_SLAB_H_
#define HAKMEM_HEAP_SLAB_H_

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hak_heap;

// In the order in which a slab that is drained passes them; each but the first has a list of its own in the bin.
enum hak_slab_state { HAK_SLAB_CURRENT, HAK_SLAB_ASLEEP, HAK_SLAB_PARTLY_CARVED, HAK_SLAB_AWAKE, HAK_SLAB_SPARSE };
#define HAK_SLAB_STATES 5

// The geometry of one kind of slab.
struct hak_class {
  uint32_t kind;
  uint32_t n_slabs;      // length of the run, a power of two
  uint32_t block_bytes;  // a multiple of 16
  uint32_t first;        // offset of block 0
  uint32_t n_blocks;
};

// The offset of the first block, and the alignment of all blocks, of `kind` and `block_bytes`.
static inline uint32_t hak_class_alignment(uint32_t kind, uint32_t block_bytes) {
  uint32_t divisor = (uint32_t)hak_lowest_bit(block_bytes);
  return hak_kind_run_shift(kind) == HAK_RUN_SHIFT_MIN ? divisor : divisor / 2;
}

// The geometry of blocks of `kind` and `block_bytes`, a multiple of 16 (of 32 in runs that are not the shortest).
static inline struct hak_class hak_class_make(uint32_t kind, uint32_t block_bytes) {
  uint32_t n_slabs = (uint32_t)hak_kind_run_slabs(kind);
  uint32_t first = hak_class_alignment(kind, block_bytes);
  uint32_t n_blocks = (n_slabs * (uint32_t)HAK_SLAB_BYTES - first) / block_bytes;
  struct hak_class geometry = {kind, n_slabs, block_bytes, first, n_blocks};
  return geometry;
}

// The length of a strip of `kind`, as a logarithm: 4 KiB for sizes to 2 KiB, 8 KiB to 4 KiB, and so on.
#define HAK_STRIP_SHIFT_MIN 12
static inline unsigned hak_kind_strip_shift(size_t kind) {
  return (unsigned)hak_max(hak_kind_32_blocks_shifts[kind], HAK_STRIP_SHIFT_MIN + 4) - 4;
}

// How many strips a run of `kind` has, and a bit for each.
#define HAK_STRIPS_MAX ((size_t)1 << (HAK_RUN_SHIFT_MIN - HAK_STRIP_SHIFT_MIN))
static inline size_t hak_kind_strips(size_t kind) {
  return (size_t)1 << (hak_kind_run_shift(kind) - hak_kind_strip_shift(kind));
}
static inline uint64_t hak_kind_strips_all(size_t kind) { return hak_bits(0, hak_kind_strips(kind)); }

// What the owner alone reads and writes: the private descriptors of the run's first two slabs, a cache line each. What
// a free and a refill look at lies in the first.
//
//   0      8           12     16         24     32     36            40      42         44     46     48     56     64
//   +------+-----------+------+----------+------+------+-------------+-------+----------+------+------+------+------+
//   | free | countdown | rest | uncarved | base | span | block_bytes | first | n_blocks |kind, | seen | next | prev |
//   |      |           |      |          |      |      |             |       |          |state |      |      |      |
//   +------+-----------+------+----------+------+------+-------------+-------+----------+------+------+------+------+
//   64      72             76      77                                                                             128
//   +-------+--------------+-------+-------------------------------------------------------------------------------+
//   | dirty | purgeable_ms | flags |                                                                               |
//   +-------+--------------+-------+-------------------------------------------------------------------------------+
struct hak_slab {
  uintptr_t free;     // list of blocks freed by the owner while the slab was not current, and of collected remote ones
  int32_t countdown;  // frees until the slab changes its state, or is SPARSE and looked at; CURRENT: nothing
  uint32_t rest;      // blocks in use when the countdown will have come to 0; CURRENT: nothing
  uint64_t uncarved;  // bit per strip
  uintptr_t base;
  uint32_t span;  // all blocks together, in bytes
  uint32_t block_bytes;
  uint16_t first;
  uint16_t n_blocks;
  uint8_t kind;
  uint8_t state;                 // enum hak_slab_state
  uint16_t seen;                 // at the last look: blocks in use; CURRENT: a hash, return_unused_kinds; 0: no look
  struct hak_slab *next, *prev;  // the owner's list of this kind and state
  uint64_t dirty;                // bit per strip
  uint32_t purgeable_ms;         // since when it is (the low bits of the clock)
  bool purgeable : 1;            // strips may have become free since the last look; else hak_unused_note_current
  bool counted : 1;              // purgeable and SPARSE: the dirty strips count as unused memory of the process
  unsigned char reserved[51];
};

static_assert(sizeof(struct hak_slab) == (size_t)2 * HAK_DESCRIPTOR_BYTES, "two cache lines");
static_assert(sizeof(struct hak_slab) <= HAK_DESCRIPTOR_BYTES << (HAK_RUN_SHIFT_MIN - HAK_SLAB_SHIFT),
              "the run has them");
static_assert(offsetof(struct hak_slab, uncarved) == 16 && offsetof(struct hak_slab, span) == 32, "as drawn");
static_assert(offsetof(struct hak_slab, kind) == 44 && offsetof(struct hak_slab, dirty) == 64, "as drawn");

// What other threads write: on a cache line of its own, the shared descriptor of the run's first slab.
//
//   word:   63           48 47                                         4    3..1      0
//          +---------------+--------------------------------------------+--------+---------+
//          | blocks in it  |   head of the list of remotely freed blocks |   0    | in mail |     empty: `base`
//          +---------------+--------------------------------------------+--------+---------+
struct hak_slab_remote {
  uint64_t word;                      // atomic
  struct hak_heap *owner;             // atomic; who drains this slab's mail
  struct hak_slab_remote *mail_next;  // belongs to who has set `in mail`, then to who drains
  uintptr_t base;
  uint32_t n_slabs;
  uint32_t reserved[7];
};

static_assert(sizeof(struct hak_slab_remote) == HAK_DESCRIPTOR_BYTES, "one cache line");

#define HAK_REMOTE_IN_MAIL ((uint64_t)1)
#define HAK_REMOTE_COUNT_SHIFT 48
#define HAK_REMOTE_HEAD(word) ((uintptr_t)(word) & (((uint64_t)1 << HAK_REMOTE_COUNT_SHIFT) - 16))

// Where the countdown of a CURRENT slab starts, and starts again should it run out: it means nothing there.
#define HAK_COUNTDOWN_NEVER INT32_MAX

// The descriptors of the run that starts at `base`.
static inline struct hak_slab *hak_slab_at(uintptr_t base) {
  return (struct hak_slab *)hak_slab_private_descriptor(base);
}
static inline struct hak_slab_remote *hak_slab_remote_at(uintptr_t base) {
  return (struct hak_slab_remote *)hak_slab_shared_descriptor(base);
}

// Whether a block that was carved may start at `offset` from the slab's base; `strip_shift` is that of its kind.
static inline bool hak_slab_is_carved(const struct hak_slab *slab, unsigned strip_shift, uint32_t offset) {
  if (offset - slab->first >= slab->span) return false;
  return (slab->uncarved >> (offset >> strip_shift) & 1) == 0;
}

// Blocks of a slab that is not CURRENT which are not free: handed out, in an outbox, or on its remote list. Of a
// PARTLY_CARVED one the blocks that are not carved count as used.
static inline uint32_t hak_slab_used(const struct hak_slab *slab) { return (uint32_t)slab->countdown + slab->rest; }

static inline size_t hak_slab_dirty_bytes(const struct hak_slab *slab) {
  return (size_t)hak_count_bits(slab->dirty) << hak_kind_strip_shift(slab->kind);
}

// An eighth of the blocks, at least 1: so many free wake a slab, so many used or less make it sparse.
static inline uint32_t hak_slab_eighth(const struct hak_slab *slab) { return (uint32_t)hak_max(slab->n_blocks / 8, 1); }

// When so few are in use, a SPARSE slab is worth a look at its free strips: a sixteenth, but no more than there are
// strips, or of small blocks that are freed at random each strip would have some. Not earlier, since a slab that is on
// its way to be empty is not worth it, and a look touches all its free blocks.
static inline uint32_t hak_slab_last_blocks(const struct hak_slab *slab) {
  return (uint32_t)hak_max(hak_min(slab->n_blocks / 16, hak_kind_strips(slab->kind)), 3);
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HEAP_SLAB_H_

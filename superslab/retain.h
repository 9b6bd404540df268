// How much unused memory a process keeps.
//
// Memory that was freed and still holds pages is worth keeping for the next phase of a program, since to fault a page
// in again costs more than anything else an allocator does; and it is a waste in a program that has no such phase. The
// tiers count what they keep here. Up to a limit it stays until it was unused for the decay time; what is beyond goes
// back at once, the longest unused first.
//
// The limit is learned. What went back early is remembered for two decay times at most, as a ghost: if the process
// takes fresh memory meanwhile, it would have been better to keep as much, and the limit grows by four times that. So
// a program that frees all it has once gives it back, and one that does so again and again soon keeps it. What stayed
// until the decay time was over lowers the limit as fast. But memory that one tier keeps may be of no use to another,
// so that a steady program might learn ever more: what was learned keeps the whole no larger than what was in use at
// the most plus an eighth, or 16 MiB as long as that is no more than 64 MiB in all: what is split among kinds is larger
// in proportion in a small process. (Ghost entries that move a limit are an idea of the ARC cache of Megiddo and Modha,
// FAST 2003.)
//
// All numbers are hints: atomic, relaxed, and a few slabs off when threads race. They are written when pages are taken
// into use or given back, which costs far more.
#ifndef HAKMEM_SUPERSLAB_RETAIN_H_
#define HAKMEM_SUPERSLAB_RETAIN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "platform/os.h"
#include "superslab/limit.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_RETAIN_MIN_BYTES ((size_t)4 * 1024 * 1024)
#define HAK_RETAIN_SHIFT 5
#define HAK_RETAIN_SMALL_SLACK_BYTES ((size_t)16 * 1024 * 1024)
#define HAK_RETAIN_SMALL_BYTES ((size_t)64 * 1024 * 1024)
#define HAK_RETAIN_LOOK_INTERVAL_MIN_MS 50
#define HAK_RETAIN_GHOST_WEIGHT 4  // 2 and 8 were tried: docs/decisions/0004-what-is-kept.md

struct hak_retain {
  const struct hak_os *os;
  uint64_t delay_ms;     // the decay time; may change at any time
  size_t min_bytes;      // what is kept at least, as is a thirty-second of backed_bytes; may change at any time
  size_t backed_bytes;   // pages of Tiny, Mid and ACE, but for those in the pool
  size_t unused_bytes;   // what is kept now, of all tiers and the pool
  size_t outside_bytes;  // of these, what backed_bytes does not count: the pool's, and Huge's
  size_t spare_bytes;    // of these, what heaps keep for their own next refills
  size_t huge_bytes;     // Huge's blocks in use
  size_t peak_bytes;     // the most that was in use, lately
  size_t learned_bytes;  // the limit as far as it was learned
  size_t ghost_bytes;    // given back early since ghost_ms
  uint64_t ghost_ms;
  struct hak_limit limit;
};

static inline uint64_t hak_retain_delay_ms(const struct hak_retain *retain) {
  return hak_load_relaxed(&retain->delay_ms);
}

// How often somebody looks for what is due: twice in the decay time, but not all the time where that is short.
static inline uint64_t hak_retain_look_interval_ms(const struct hak_retain *retain) {
  return hak_max(hak_retain_delay_ms(retain) / 2, HAK_RETAIN_LOOK_INTERVAL_MIN_MS);
}

static inline void hak_retain_add_unused(struct hak_retain *retain, size_t bytes) {
  hak_add_relaxed(&retain->unused_bytes, bytes);
}

static inline void hak_retain_sub_unused(struct hak_retain *retain, size_t bytes) {
  hak_sub_relaxed(&retain->unused_bytes, bytes);
}

// The same of the pool and Huge.
static inline void hak_retain_add_unused_outside(struct hak_retain *retain, size_t bytes) {
  hak_add_relaxed(&retain->outside_bytes, bytes);
  hak_retain_add_unused(retain, bytes);
}

static inline size_t hak_retain_used_bytes(const struct hak_retain *retain) {
  size_t unused_inside = hak_load_relaxed(&retain->unused_bytes) - hak_load_relaxed(&retain->outside_bytes);
  size_t used = hak_load_relaxed(&retain->backed_bytes) + hak_load_relaxed(&retain->huge_bytes) - unused_inside;
  return used <= SIZE_MAX / 2 ? used : 0;
}

static inline void hak_retain_note_peak(struct hak_retain *retain) {
  size_t used = hak_retain_used_bytes(retain);
  if (used > hak_load_relaxed(&retain->peak_bytes)) hak_store_relaxed(&retain->peak_bytes, used);
}

// Notes that the bytes of Huge's blocks have changed by so many.
static inline void hak_retain_add_huge(struct hak_retain *retain, size_t bytes) {
  hak_add_relaxed(&retain->huge_bytes, bytes);
  hak_retain_note_peak(retain);
}

// What the whole may be for what was learned.
static inline size_t hak_retain_learned_most(const struct hak_retain *retain) {
  size_t peak = hak_load_relaxed(&retain->peak_bytes);
  return hak_max(peak + peak / 8, hak_min(peak + HAK_RETAIN_SMALL_SLACK_BYTES, HAK_RETAIN_SMALL_BYTES));
}

// How much of what was learned is not too much.
static inline size_t hak_retain_learned_limit(const struct hak_retain *retain) {
  size_t learned = hak_load_relaxed(&retain->learned_bytes);
  if (learned == 0) return 0;
  size_t most = hak_retain_learned_most(retain);
  return hak_min(learned, most - hak_min(hak_retain_used_bytes(retain), most));
}

// How many bytes are kept. None where the process holds more than it may.
static inline size_t hak_retain_limit(const struct hak_retain *retain) {
  if (HAK_UNLIKELY(hak_limit_is_exceeded(&retain->limit))) return 0;
  size_t limit = hak_max(hak_retain_learned_limit(retain), hak_load_relaxed(&retain->min_bytes));
  return hak_max(limit, hak_load_relaxed(&retain->backed_bytes) >> HAK_RETAIN_SHIFT);
}

// Whether a heap may keep `bytes` for itself: half of what is kept is for those who ask.
static inline bool hak_retain_spares(const struct hak_retain *retain, size_t bytes) {
  return hak_load_relaxed(&retain->spare_bytes) + bytes <= hak_retain_limit(retain) / 2;
}

// How many bytes are kept beyond the limit.
static inline size_t hak_retain_excess(const struct hak_retain *retain) {
  size_t unused = hak_load_relaxed(&retain->unused_bytes);
  size_t limit = hak_retain_limit(retain);
  // A sum that has slipped below 0 for a moment is not an excess.
  return unused > limit && unused <= SIZE_MAX / 2 ? unused - limit : 0;
}

// Notes that `bytes` went back although they were unused for less than the decay time.
static inline void hak_retain_gave_back_early(struct hak_retain *retain, size_t bytes) {
  uint64_t now = retain->os->now_ms();
  uint64_t since = hak_load_relaxed(&retain->ghost_ms);
  if (now - since >= hak_retain_delay_ms(retain) && hak_cas_relaxed(&retain->ghost_ms, &since, now)) {
    hak_store_relaxed(&retain->ghost_bytes, 0);
    // A program that has become smaller for good is forgotten to have been large, by half each time.
    size_t used = hak_retain_used_bytes(retain);
    size_t peak = hak_load_relaxed(&retain->peak_bytes);
    if (used < peak) hak_store_relaxed(&retain->peak_bytes, used + (peak - used) / 2);
  }
  hak_add_relaxed(&retain->ghost_bytes, bytes);
}

// Notes that `bytes` that were unused for the decay time went back.
static inline void hak_retain_gave_back_late(struct hak_retain *retain, size_t bytes) {
  size_t learned = hak_load_relaxed(&retain->learned_bytes);
  if (learned != 0)
    hak_store_relaxed(&retain->learned_bytes, learned - hak_min(learned, HAK_RETAIN_GHOST_WEIGHT * bytes));
}

// Notes that the program wants nothing kept: what was in use before does not matter any more.
static inline void hak_retain_trimmed(struct hak_retain *retain) {
  hak_store_relaxed(&retain->peak_bytes, hak_retain_used_bytes(retain));
}

// Notes that pages of `bytes` bytes were lost, by a purge or because their range goes back to the pool.
static inline void hak_retain_lost_pages(struct hak_retain *retain, size_t bytes) {
  hak_sub_relaxed(&retain->backed_bytes, bytes);
}

// Notes that `bytes` of memory that hold pages, or will at once, were taken into use; `fresh_bytes` of them did not.
static inline void hak_retain_took_pages(struct hak_retain *retain, size_t bytes, size_t fresh_bytes) {
  hak_add_relaxed(&retain->backed_bytes, bytes);
  hak_retain_note_peak(retain);
  size_t ghost = hak_load_relaxed(&retain->ghost_bytes);
  if (ghost == 0 || fresh_bytes == 0) return;
  if (retain->os->now_ms() - hak_load_relaxed(&retain->ghost_ms) >= 2 * hak_retain_delay_ms(retain)) {
    hak_store_relaxed(&retain->ghost_bytes, 0);
    return;
  }
  size_t learned = hak_min(ghost, fresh_bytes);
  hak_store_relaxed(&retain->ghost_bytes, ghost - learned);
  // Much more, so that a program in phases has its limit after few of them; but no more than can have an effect, else
  // what stayed until the decay time was over could not lower it.
  learned = hak_load_relaxed(&retain->learned_bytes) + HAK_RETAIN_GHOST_WEIGHT * learned;
  hak_store_relaxed(&retain->learned_bytes, hak_min(learned, hak_retain_learned_most(retain)));
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_SUPERSLAB_RETAIN_H_

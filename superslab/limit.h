// How much memory a process may hold (HAKMEM_LIMIT).
//
// Held is what the operating system has given, or will give at the next touch, and has not got back:
//   - of Tiny and Mid the strips that may hold pages, and of ACE the pages that were handed out since they were purged,
//     whether or not a block is in use there;
//   - slabs in the pool that may hold pages;
//   - of Huge the mappings, as a whole, touched or not, in use or cached.
// Address space without pages is not held, and metadata (registry, descriptors, heaps) is not counted.
//
// Memory is taken with hak_limit_take before it can be touched. Under a hard limit that fails beyond it; the router
// then trims, tries again, and answers NULL. Under a soft one it succeeds; what is unused goes back at once meanwhile
// (retain.h), and the router trims now and then.
//
// All on slow paths: a strip carved, an extent taken from an arena, a mapping made or grown.
#ifndef HAKMEM_SUPERSLAB_LIMIT_H_
#define HAKMEM_SUPERSLAB_LIMIT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_LIMIT_NONE SIZE_MAX

// All atomic, relaxed.
struct hak_limit {
  size_t max_bytes;  // HAK_LIMIT_NONE: no limit
  size_t held_bytes;
  uint32_t soft;       // beyond the limit memory is given nevertheless
  uint32_t n_pressed;  // how often more than the limit was asked for
};

// Whether `bytes` more would be refused.
static inline bool hak_limit_refuses(const struct hak_limit *limit, size_t bytes) {
  size_t max = hak_load_relaxed(&limit->max_bytes);
  size_t held = hak_load_relaxed(&limit->held_bytes);
  return hak_load_relaxed(&limit->soft) == 0 && (bytes > max || held > max - bytes);
}

static inline bool hak_limit_is_exceeded(const struct hak_limit *limit) {
  return hak_load_relaxed(&limit->held_bytes) > hak_load_relaxed(&limit->max_bytes);
}

// Counts `bytes` that are about to be held. False, and nothing is counted, not even for a moment in which another
// thread would be refused what there is room for, if a hard limit does not allow for them.
static inline bool hak_limit_take(struct hak_limit *limit, size_t bytes) {
  if (bytes == 0) return true;
  size_t max = hak_load_relaxed(&limit->max_bytes);
  bool soft = hak_load_relaxed(&limit->soft) != 0;
  size_t held = hak_load_relaxed(&limit->held_bytes);
  bool is_beyond;
  do {
    is_beyond = held + bytes > max;
    if (HAK_UNLIKELY(is_beyond) && !soft) break;
  } while (!hak_cas_relaxed(&limit->held_bytes, &held, held + bytes));
  if (HAK_LIKELY(!is_beyond)) return true;
  hak_add_relaxed(&limit->n_pressed, 1);
  return soft;
}

// Counts `bytes` that are held already, or that are known only as part of a larger unit.
static inline void hak_limit_add(struct hak_limit *limit, size_t bytes) { hak_add_relaxed(&limit->held_bytes, bytes); }

// Counts `bytes` that went back.
static inline void hak_limit_give_back(struct hak_limit *limit, size_t bytes) {
  hak_sub_relaxed(&limit->held_bytes, bytes);
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_SUPERSLAB_LIMIT_H_

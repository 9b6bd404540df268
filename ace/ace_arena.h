// The arenas: SuperSlabs, their free pages and what becomes of them. Internal to ace/.
#ifndef HAKMEM_ACE_ACE_ARENA_H_
#define HAKMEM_ACE_ACE_ARENA_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ace/ace.h"

void hak_ace_arena_init(struct hak_ace_arena *arena);

// A new extent of `n_pages` pages at a multiple of `align_pages`; with `grow`, a new SuperSlab is taken from the pool
// where no other has room. NULL when there is no memory. Takes the arena's lock.
void *hak_ace_arena_malloc(struct hak_ace *ace, struct hak_ace_arena *arena, size_t n_pages, size_t align_pages,
                           bool grow, bool *zeroed);

// Gives `n` extents back, each to the arena of its SuperSlab. They are in nobody's hands but the caller's, and marked
// as cached or not. Takes the arenas' locks, and purges what is due there.
void hak_ace_arena_free(struct hak_ace *ace, void *const *extents, size_t n, uint64_t now_ms);

// As above for one extent that may not be one: false if nothing lives at `p`, which is then untouched.
bool hak_ace_arena_free_live(struct hak_ace *ace, void *p, uint64_t now_ms);

// Changes the length of the live extent at `p` to `n_pages`, in place. False if that is impossible.
bool hak_ace_arena_resize(struct hak_ace *ace, void *p, size_t n_pages, uint64_t now_ms);

// Returns the pages that were free for longer than the decay time.
void hak_ace_arena_tick(struct hak_ace *ace, struct hak_ace_arena *arena, uint64_t now_ms);

// Returns the free pages to the operating system, but for what *keep_bytes (which is counted down) lets be kept.
size_t hak_ace_arena_trim(struct hak_ace *ace, struct hak_ace_arena *arena, size_t *keep_bytes);

// Stacks for a cache of the arena, of which nothing is known; NULL when there is no memory. Takes the arena's lock.
struct hak_ace_stacks *hak_ace_arena_take_stacks(struct hak_ace *ace, struct hak_ace_arena *arena);

// Keeps empty stacks for the next cache. Takes the arena's lock.
void hak_ace_arena_put_stacks(struct hak_ace_arena *arena, struct hak_ace_stacks *stacks);

// The bytes of free pages in SuperSlabs that have room for another extent. Called with the arena's lock.
size_t hak_ace_arena_free_bytes_locked(const struct hak_ace_arena *arena) HAK_REQUIRES(arena->lock);

#endif  // HAKMEM_ACE_ACE_ARENA_H_

#include "ace/ace_superslab.h"

#include <string.h>

#include "ace/ace_inline.h"
#include "base/atomic.h"
#include "base/bits.h"
#include "base/poison.h"
#include "platform/report.h"

#define N_PAGES HAK_ACE_SUPERSLAB_PAGES

static uint32_t *words_of(const struct hak_ace_superslab *superslab) {
  return (uint32_t *)hak_slab_private_descriptor(superslab->base);
}

static bool is_free_run(uint32_t word) { return (word & HAK_ACE_FREE) != 0; }

// Free runs

static void set_free_run(uint32_t *words, size_t first, size_t n_pages) {
  if (n_pages == 0) return;
  uint32_t word = HAK_ACE_UNUSED | HAK_ACE_FREE | (uint32_t)n_pages << HAK_ACE_EXTENT_PAGES_SHIFT;
  hak_store_relaxed(&words[first], word);
  hak_store_relaxed(&words[first + n_pages - 1], word);
}

static void clear_free_run(uint32_t *words, size_t first, size_t n_pages) {
  hak_store_relaxed(&words[first], 0);
  hak_store_relaxed(&words[first + n_pages - 1], 0);
}

// Makes the pages [first, first + n_pages), whose words are 0, a free run, together with the runs that touch it. Its
// length.
static size_t add_free_run(uint32_t *words, size_t first, size_t n_pages) {
  uint32_t before = first == 0 ? 0 : hak_load_relaxed(&words[first - 1]);
  uint32_t after = first + n_pages == N_PAGES ? 0 : hak_load_relaxed(&words[first + n_pages]);
  if (is_free_run(after)) {
    clear_free_run(words, first + n_pages, hak_ace_extent_pages(after));
    n_pages += hak_ace_extent_pages(after);
  }
  if (is_free_run(before)) {
    first -= hak_ace_extent_pages(before);
    clear_free_run(words, first, hak_ace_extent_pages(before));
    n_pages += hak_ace_extent_pages(before);
  }
  set_free_run(words, first, n_pages);
  return n_pages;
}

static size_t longest_run(const uint32_t *words) {
  size_t longest = 0;
  uint32_t word;
  for (size_t first = 0; first != N_PAGES; first += hak_ace_extent_pages(word)) {
    word = hak_load_relaxed(&words[first]);
    if (is_free_run(word)) longest = hak_max(longest, hak_ace_extent_pages(word));
  }
  return longest;
}

struct hak_ace_superslab *hak_ace_superslab_init(uintptr_t base, struct hak_ace_arena *arena, bool zeroed) {
  struct hak_ace_superslab *superslab = hak_ace_superslab_of((const void *)base);
  *superslab = (struct hak_ace_superslab){.base = base, .arena = arena, .n_free = N_PAGES, .run = N_PAGES};
  if (!zeroed) {
    memset(superslab->dirty, 0xff, sizeof superslab->dirty);
    superslab->n_dirty = N_PAGES;
  }
  // Other tiers may have used the descriptors before.
  uint32_t *words = words_of(superslab);
  memset(words, 0, N_PAGES * sizeof *words);
  set_free_run(words, 0, N_PAGES);
  return superslab;
}

// Dirty pages

// The bits of [first, end) that lie in `word`; the range meets the word.
static uint64_t word_mask(size_t word, size_t first, size_t end) {
  uint64_t mask = ~(uint64_t)0;
  if (first > word * 64) mask &= ~(uint64_t)0 << (first - word * 64);
  if (end < (word + 1) * 64) mask &= ~(uint64_t)0 >> ((word + 1) * 64 - end);
  return mask;
}

static size_t count_dirty(const struct hak_ace_superslab *superslab, size_t first, size_t end) {
  size_t n = 0;
  for (size_t word = first / 64; word <= (end - 1) / 64; ++word) {
    n += (size_t)__builtin_popcountl(superslab->dirty[word] & word_mask(word, first, end));
  }
  return n;
}

// Marks the pages [first, end) as dirty; true if none of them was before.
static bool mark_dirty(struct hak_ace_superslab *superslab, size_t first, size_t end) {
  size_t n_more = 0;
  for (size_t word = first / 64; word <= (end - 1) / 64; ++word) {
    uint64_t mask = word_mask(word, first, end);
    n_more += (size_t)__builtin_popcountl(mask & ~superslab->dirty[word]);
    superslab->dirty[word] |= mask;
  }
  superslab->n_dirty = (uint16_t)(superslab->n_dirty + n_more);
  return n_more == end - first;
}

// Marks the pages [first, end), `n_dirty` of which are dirty, as clean.
static void mark_clean(struct hak_ace_superslab *superslab, size_t first, size_t end, size_t n_dirty) {
  for (size_t word = first / 64; word <= (end - 1) / 64; ++word) superslab->dirty[word] &= ~word_mask(word, first, end);
  superslab->n_dirty = (uint16_t)(superslab->n_dirty - n_dirty);
}

// Extents

void *hak_ace_superslab_take(struct hak_ace_superslab *superslab, size_t n_pages, size_t align_pages, bool *zeroed) {
  uint32_t *words = words_of(superslab);
  size_t best_run = N_PAGES + 1;
  size_t best_start = 0;
  size_t other_run = 0;  // the longest of the others
  uint32_t word;
  for (size_t start = 0; start != N_PAGES; start += hak_ace_extent_pages(word)) {
    word = hak_load_relaxed(&words[start]);
    if (!is_free_run(word)) continue;
    size_t run = hak_ace_extent_pages(word);
    if (run < best_run && hak_round_up(start, align_pages) + n_pages <= start + run) {
      if (best_run <= N_PAGES) other_run = hak_max(other_run, best_run);
      best_start = start;
      best_run = run;
    } else {
      other_run = hak_max(other_run, run);
    }
  }
  HAK_CHECK(best_run <= N_PAGES);

  size_t first = hak_round_up(best_start, align_pages);
  size_t before = first - best_start;
  size_t after = best_run - before - n_pages;
  clear_free_run(words, best_start, best_run);
  set_free_run(words, best_start, before);
  set_free_run(words, first + n_pages, after);
  hak_store_relaxed(&words[first], hak_ace_extent_make(n_pages));
  superslab->run = (uint16_t)hak_max(other_run, hak_max(before, after));
  superslab->n_free = (uint16_t)(superslab->n_free - n_pages);
  bool clean = mark_dirty(superslab, first, first + n_pages);
  if (zeroed != NULL) *zeroed = clean;
  void *extent = hak_ace_page_address(superslab, first);
  hak_unpoison(extent, n_pages << HAK_ACE_PAGE_SHIFT);
  return extent;
}

void hak_ace_superslab_put(struct hak_ace_superslab *superslab, void *extent) {
  uint32_t *words = words_of(superslab);
  size_t first = hak_ace_page_of(extent);
  size_t n_pages = hak_ace_extent_pages(hak_load_relaxed(&words[first]));
  hak_store_relaxed(&words[first], 0);
  hak_poison(extent, n_pages << HAK_ACE_PAGE_SHIFT);
  superslab->n_free = (uint16_t)(superslab->n_free + n_pages);
  superslab->run = (uint16_t)hak_max(superslab->run, add_free_run(words, first, n_pages));
}

bool hak_ace_superslab_resize(struct hak_ace_superslab *superslab, void *extent, size_t n_pages) {
  uint32_t *words = words_of(superslab);
  size_t first = hak_ace_page_of(extent);
  size_t old_pages = hak_ace_extent_pages(hak_load_relaxed(&words[first]));
  size_t end = first + n_pages;
  size_t old_end = first + old_pages;
  if (n_pages > old_pages) {
    uint32_t after = old_end == N_PAGES ? 0 : hak_load_relaxed(&words[old_end]);
    if (!is_free_run(after) || hak_ace_extent_pages(after) < end - old_end) return false;
    clear_free_run(words, old_end, hak_ace_extent_pages(after));
    set_free_run(words, end, hak_ace_extent_pages(after) - (end - old_end));
    (void)mark_dirty(superslab, old_end, end);
    hak_unpoison(hak_ace_page_address(superslab, old_end), (end - old_end) << HAK_ACE_PAGE_SHIFT);
    hak_store_relaxed(&words[first], hak_ace_extent_make(n_pages));  // before the walk over all words
    superslab->run = (uint16_t)longest_run(words);
  } else if (n_pages < old_pages) {
    hak_poison(hak_ace_page_address(superslab, end), (old_end - end) << HAK_ACE_PAGE_SHIFT);
    superslab->run = (uint16_t)hak_max(superslab->run, add_free_run(words, end, old_end - end));
  }
  superslab->n_free = (uint16_t)(superslab->n_free + old_pages - n_pages);
  hak_store_relaxed(&words[first], hak_ace_extent_make(n_pages));
  return true;
}

// Purge

// Purges the free run [start, end); the number of pages that were dirty.
static size_t purge_run(struct hak_ace_superslab *superslab, const struct hak_os *os, size_t start, size_t end) {
  size_t os_pages = hak_max(os->page_bytes >> HAK_ACE_PAGE_SHIFT, 1);
  size_t first = hak_round_up(start, os_pages);
  size_t last = hak_round_down(end, os_pages);
  // One call for the whole run: the clean pages in it cost less than another call.
  size_t n_dirty = first < last ? count_dirty(superslab, first, last) : 0;
  if (n_dirty == 0) return 0;
  if (!os->purge(hak_ace_page_address(superslab, first), (last - first) << HAK_ACE_PAGE_SHIFT)) return 0;
  mark_clean(superslab, first, last, n_dirty);
  return n_dirty;
}

size_t hak_ace_superslab_purge(struct hak_ace_superslab *superslab, const struct hak_os *os) {
  const uint32_t *words = words_of(superslab);
  size_t purged = 0;
  uint32_t word;
  for (size_t start = 0; start != N_PAGES; start += hak_ace_extent_pages(word)) {
    word = hak_load_relaxed(&words[start]);
    if (is_free_run(word)) purged += purge_run(superslab, os, start, start + hak_ace_extent_pages(word));
  }
  return purged << HAK_ACE_PAGE_SHIFT;
}

bool hak_ace_superslab_is_unused(const struct hak_ace_superslab *superslab, const void *p) {
  const uint32_t *words = words_of(superslab);
  size_t start = 0;
  uint32_t word = hak_load_relaxed(&words[0]);
  while (start + hak_ace_extent_pages(word) <= hak_ace_page_of(p)) {
    start += hak_ace_extent_pages(word);
    word = hak_load_relaxed(&words[start]);
  }
  return (word & HAK_ACE_UNUSED) != 0;
}

#include "mid/mid.h"

#include <assert.h>

#include "platform/report.h"

static_assert(HAK_MID_KINDS == 40, "eight classes in each of five doublings");

// Of each doubling, counted from 0, the eighths, which are 128 bytes long in the first.
#define EIGHTH(doubling, i) \
  [((8 + (i)) << (doubling)) - 8 ...((9 + (i)) << (doubling)) - 9] = (HAK_KIND_MID_FIRST + 8 * (doubling) + (i))
#define EIGHTHS(doubling)                                                                                  \
  EIGHTH(doubling, 0), EIGHTH(doubling, 1), EIGHTH(doubling, 2), EIGHTH(doubling, 3), EIGHTH(doubling, 4), \
      EIGHTH(doubling, 5), EIGHTH(doubling, 6), EIGHTH(doubling, 7)

const uint8_t hak_mid_kinds[HAK_MID_SIZE_STEPS] = {EIGHTHS(0), EIGHTHS(1), EIGHTHS(2), EIGHTHS(3), EIGHTHS(4)};

// The kind that serves the first SHARED_BLOCKS blocks of `kind` on a diet: every other one.
#define SHARED_BLOCKS 4
static size_t shared_kind(size_t kind) { return HAK_KIND_MID_FIRST + ((kind - HAK_KIND_MID_FIRST) | 1); }

static HAK_NOINLINE void *take_of_kind(struct hak_cache *cache, size_t kind) {
  void *block = hak_cache_pop_recent(cache, kind);
  if (block != NULL) return block;
  struct hak_class geometry = hak_class_make((uint32_t)kind, (uint32_t)hak_mid_block_bytes(kind));
  return hak_heap_refill(cache, &geometry) ? hak_cache_pop_recent(cache, kind) : NULL;
}

void *hak_mid_malloc(struct hak_cache *cache, size_t size) {
  size_t kind = hak_mid_kind(hak_max(size, HAK_MID_SIZE_MIN));
  void *block = hak_cache_pop_recent(cache, kind);
  if (HAK_LIKELY(block != NULL)) return block;
  return take_of_kind(cache, hak_heap_lender(cache, kind, shared_kind(kind), SHARED_BLOCKS));
}

void *hak_mid_malloc_any(struct hak_cache *cache, size_t size) {
  void *block = NULL;
  cache->heap->takes_no_runs = true;
  for (size_t kind = hak_mid_kind(hak_max(size, HAK_MID_SIZE_MIN)); block == NULL && kind <= HAK_KIND_MID_LAST;
       ++kind) {
    block = take_of_kind(cache, kind);
  }
  cache->heap->takes_no_runs = false;
  return block;
}

void *hak_mid_malloc_aligned(struct hak_cache *cache, size_t size, size_t alignment) {
  if (size > HAK_MID_SIZE_MAX || alignment > HAK_MID_SIZE_MAX) return NULL;
  size_t kind = hak_mid_kind_aligned(size, alignment);
  return kind <= HAK_KIND_MID_LAST ? take_of_kind(cache, kind) : NULL;
}

void hak_mid_free(struct hak_cache *cache, void *p) {
  struct hak_cache_miss miss;
  if (hak_cache_push(cache, p, &miss) || hak_cache_push_recent(cache, p, miss)) return;
  size_t kind = hak_entry_kind(hak_registry_find(p));
  if (kind < HAK_KIND_MID_FIRST || kind > HAK_KIND_MID_LAST) hak_fatal_misuse("free", p, HAK_MISUSE_FOREIGN);
  hak_heap_free(cache, p, "free");
}

#include "mid/mid.h"

#include <assert.h>

#include "platform/report.h"

static_assert(HAK_KIND_MID_LAST_CLASS - HAK_KIND_MID_FIRST + 1 == 40, "eight classes in each of five doublings");

// Of each doubling, counted from 0, the sizes of one eighth, which are 128 bytes long in the first.
#define EIGHTH(doubling, i) [((8 + (i)) << (doubling)) - 8 ...((9 + (i)) << (doubling)) - 9]
#define CLASS(doubling, i) EIGHTH(doubling, i) = (HAK_KIND_MID_FIRST + 8 * (doubling) + (i))
// The kind number `n` of those without colour: of 4 KiB, 5 to 8 KiB, 9 to 16 KiB, and 18 to 32 KiB.
#define PLAIN(doubling, i, n) EIGHTH(doubling, i) = (HAK_KIND_MID_LAST_CLASS + (n))
#define PLAIN_3(doubling, i) PLAIN(doubling, i, 6 + (i))
#define PLAIN_4(doubling, i) PLAIN(doubling, i, 14 + (i))

#define EIGHTHS(of, doubling)                                                                           \
  of(doubling, 0), of(doubling, 1), of(doubling, 2), of(doubling, 3), of(doubling, 4), of(doubling, 5), \
      of(doubling, 6), of(doubling, 7)

const uint8_t hak_mid_kinds[HAK_MID_SIZE_STEPS] = {
    EIGHTHS(CLASS, 0), EIGHTHS(CLASS, 1), EIGHTHS(CLASS, 2), EIGHTHS(CLASS, 3), EIGHTHS(CLASS, 4),
};

// A class that has no colour serves alignments itself.
const uint8_t hak_mid_kinds_aligned[HAK_MID_SIZE_STEPS] = {
    EIGHTHS(CLASS, 0), CLASS(1, 0),    CLASS(1, 1),         CLASS(1, 2),         CLASS(1, 3),
    CLASS(1, 4),       CLASS(1, 5),    CLASS(1, 6),         PLAIN(1, 7, 1),      CLASS(2, 0),
    PLAIN(2, 1, 2),    CLASS(2, 2),    PLAIN(2, 3, 3),      CLASS(2, 4),         PLAIN(2, 5, 4),
    CLASS(2, 6),       PLAIN(2, 7, 5), EIGHTHS(PLAIN_3, 3), EIGHTHS(PLAIN_4, 4),
};

#define SIZE(doubling, i) ((9 + (i)) << (7 + (doubling)))
#define HAS_COLOUR(size) ((size) >= 4096 && (size) % 1024 == 0)
#define COLOUR(size) ((size) <= HAK_MID_SHORT_RUN_SIZE ? HAK_MID_ALIGNMENT : 2 * HAK_MID_ALIGNMENT)
#define COLOURED(size) ((size) + (HAS_COLOUR(size) ? COLOUR(size) : 0))
#define BLOCK(doubling, i) COLOURED(SIZE(doubling, i))

const uint16_t hak_mid_blocks[HAK_MID_KINDS] = {
    EIGHTHS(BLOCK, 0), EIGHTHS(BLOCK, 1), EIGHTHS(BLOCK, 2), EIGHTHS(BLOCK, 3), EIGHTHS(BLOCK, 4), SIZE(1, 7),
    SIZE(2, 1),        SIZE(2, 3),        SIZE(2, 5),        SIZE(2, 7),        EIGHTHS(SIZE, 3),  EIGHTHS(SIZE, 4),
};

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
  return hak_heap_take_any(cache, hak_mid_kind(hak_max(size, HAK_MID_SIZE_MIN)), HAK_KIND_MID_LAST_CLASS, take_of_kind);
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

#include "tiny/tiny.h"

#include "base/bits.h"
#include "platform/report.h"
#include "tiny/tiny_inline.h"

// The kind that serves the first SHARED_BLOCKS blocks of `kind` on a diet: one in four, one in eight of the larger
// half. So half a page is saved on average, and 24 or 56 bytes a block are lost.
#define SHARED_BLOCKS 64
static size_t shared_kind(size_t kind) { return hak_round_up(kind, kind <= HAK_KIND_TINY_LAST / 2 ? 4 : 8); }

static HAK_NOINLINE void *take_of_kind(struct hak_cache *cache, size_t kind) {
  void *block = hak_cache_pop(cache, kind);
  if (block != NULL) return block;
  struct hak_class geometry = hak_class_make((uint32_t)kind, (uint32_t)hak_tiny_block_bytes(kind));
  return hak_heap_refill(cache, &geometry) ? hak_cache_pop(cache, kind) : NULL;
}

HAK_NOINLINE void *hak_tiny_malloc_slow(struct hak_cache *cache, size_t size) {
  size_t kind = hak_tiny_kind(hak_max(size, 1));
  // Size 0 gets here with blocks in the list of its true kind.
  void *block = hak_cache_pop(cache, kind);
  if (block != NULL) return block;
  return take_of_kind(cache, hak_heap_lender(cache, kind, shared_kind(kind), SHARED_BLOCKS));
}

void *hak_tiny_malloc(struct hak_cache *cache, size_t size) {
  void *block = hak_cache_pop(cache, hak_tiny_kind(size));
  return HAK_LIKELY(block != NULL) ? block : hak_tiny_malloc_slow(cache, size);
}

void *hak_tiny_malloc_any(struct hak_cache *cache, size_t size) {
  return hak_heap_take_any(cache, hak_tiny_kind(hak_max(size, 1)), HAK_KIND_TINY_LAST, take_of_kind);
}

void *hak_tiny_malloc_aligned(struct hak_cache *cache, size_t size, size_t alignment) {
  return take_of_kind(cache, hak_tiny_kind_aligned(size, alignment));  // and none is borrowed
}

void hak_tiny_free(struct hak_cache *cache, void *p) {
  struct hak_cache_miss miss;
  if (hak_cache_push(cache, p, &miss)) return;
  size_t kind = hak_entry_kind(hak_registry_find(p));
  if (kind < HAK_KIND_TINY_FIRST || kind > HAK_KIND_TINY_LAST) hak_fatal_misuse("free", p, HAK_MISUSE_FOREIGN);
  hak_heap_free(cache, p, "free");
}

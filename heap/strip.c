// Strips: the parts of a slab in which it is carved into blocks and given back to the operating system.
#include "base/bits.h"
#include "base/compiler.h"
#include "heap/heap_internal.h"
#include "platform/report.h"

// A refill of a hot kind carves this much at most of memory that holds no pages: what is carved is touched.
#define CARVE_BYTES_MAX ((size_t)16 * 1024)

// A kind that has taken this many slabs is hot.
#define HOT_SLABS 2

static unsigned strip_shift(const struct hak_slab *slab) { return hak_kind_strip_shift(slab->kind); }

// The number of blocks that start before `strip`.
static uint32_t blocks_before(const struct hak_slab *slab, size_t strip) {
  uint32_t offset = (uint32_t)strip << strip_shift(slab);
  if (offset <= slab->first) return 0;
  return (uint32_t)hak_min((offset - slab->first + slab->block_bytes - 1) / slab->block_bytes, slab->n_blocks);
}

// The strips that a page of the operating system takes, at least 1.
static size_t strips_per_page(const struct hak_heap *heap, const struct hak_slab *slab) {
  return hak_min(hak_max(heap->set->pool->os->page_bytes >> strip_shift(slab), 1), hak_kind_strips(slab->kind));
}

// Carving

// How many of the `n_uncarved` strips from `first` on are carved at once.
static size_t strips_per_carve(const struct hak_heap *heap, const struct hak_slab *slab, size_t first,
                               size_t n_uncarved) {
  size_t n = strips_per_page(heap, slab);
  if (heap->bin[slab->kind].n_fresh >= HOT_SLABS) {
    size_t bytes = (size_t)heap->set->refill_count * slab->block_bytes;
    n = hak_max(n, hak_round_up(hak_min(bytes, CARVE_BYTES_MAX), (size_t)1 << strip_shift(slab)) >> strip_shift(slab));
    // What holds pages already is touched for less.
    size_t n_dirty = hak_count_low_bits(slab->dirty >> first);
    n = hak_round_up(hak_max(n, hak_min(n_dirty, bytes >> strip_shift(slab))), strips_per_page(heap, slab));
  }
  return hak_min(n, n_uncarved);
}

// The first of the new blocks from `block` to `end`, linked in address order.
static uintptr_t link_in_order(const struct hak_slab *slab, uintptr_t block, uintptr_t end) {
  uintptr_t head = block;
  uintptr_t bytes = slab->block_bytes;
  for (uintptr_t last = end - bytes; block != last;) {
    uintptr_t next = block + bytes;
    hak_link_set(block, next);
    block = next;
  }
  hak_link_set(block, slab->base);
  return head;
}

// The same in an order that cannot be foretold: the process's secret says for each block which end of the list it goes
// to.
static uintptr_t link_shuffled(const struct hak_slab *slab, uintptr_t block, uintptr_t end) {
  uintptr_t head = block;
  uintptr_t tail = block;
  for (uintptr_t next = block + slab->block_bytes; next != end; next += slab->block_bytes) {
    if (hak_secret_hash(next) >> 63 != 0) {
      hak_link_set(next, head);
      head = next;
    } else {
      hak_link_set(tail, next);
      tail = next;
    }
  }
  hak_link_set(tail, slab->base);
  return head;
}

// Counts the pages of those of `strips` that hold none yet. False if the limit (limit.h) does not allow for them.
static bool take_fresh_pages(struct hak_heap *heap, const struct hak_slab *slab, uint64_t strips) {
  uint64_t fresh = strips & ~slab->dirty;
  if (fresh == 0) return true;
  size_t bytes = (size_t)hak_count_bits(fresh) << strip_shift(slab);
  if (!hak_limit_take(&heap->set->pool->retain.limit, bytes)) return false;
  hak_retain_took_pages(&heap->set->pool->retain, bytes, bytes);
  heap->taken_bytes += bytes;
  return true;
}

bool hak_strip_carve(struct hak_heap *heap, struct hak_slab *slab, uintptr_t *list) {
  if (slab->uncarved == 0) return false;
  size_t first;
  size_t n_uncarved = hak_lowest_run(slab->uncarved, &first);
  size_t n = strips_per_carve(heap, slab, first, n_uncarved);
  // Asked before: to be refused counts as pressure, and a page would do.
  if (hak_limit_refuses(&heap->set->pool->retain.limit, n << strip_shift(slab))) {
    n = hak_min(strips_per_page(heap, slab), n_uncarved);
  }
  uint64_t mask = hak_bits(first, n);
  if (!take_fresh_pages(heap, slab, mask)) return false;
  slab->uncarved &= ~mask;
  slab->dirty |= mask;

  uintptr_t block = slab->base + slab->first + (uintptr_t)blocks_before(slab, first) * slab->block_bytes;
  uintptr_t end = slab->base + slab->first + (uintptr_t)blocks_before(slab, first + n) * slab->block_bytes;
  HAK_CHECK(block < end);
  *list = HAK_CONFIG_HARDENED ? link_shuffled(slab, block, end) : link_in_order(slab, block, end);
  return true;
}

void hak_strip_restart(struct hak_slab *slab) {
  slab->free = slab->base;
  slab->uncarved = hak_kind_strips_all(slab->kind);
}

uint32_t hak_strip_carved_blocks(const struct hak_slab *slab) {
  uint32_t n = slab->n_blocks;
  for (uint64_t rest = slab->uncarved; rest != 0;) {
    size_t first;
    size_t n_strips = hak_lowest_run(rest, &first);
    n -= blocks_before(slab, first + n_strips) - blocks_before(slab, first);
    rest &= ~hak_bits(first, n_strips);
  }
  return n;
}

// Purging

// What the free list says of each strip.
struct occupation {
  uint16_t n_free[HAK_STRIPS_MAX];  // free blocks that start in the strip
  uint64_t entered_free;            // bit per strip: a free block reaches into it from the one before
};

static struct occupation occupation_of(const struct hak_slab *slab) {
  struct occupation found = {.entered_free = 0};
  unsigned shift = strip_shift(slab);
  for (uintptr_t block = slab->free; block != slab->base; block = hak_link_get(block)) {
    uint32_t offset = (uint32_t)(block - slab->base);
    uint32_t strip = offset >> shift;
    ++found.n_free[strip];
    // A block is shorter than a strip.
    if ((offset + slab->block_bytes - 1) >> shift != strip) found.entered_free |= ((uint64_t)1 << (strip + 1));
  }
  return found;
}

// The strips in which no block is in use.
static uint64_t unused_strips(const struct hak_slab *slab) {
  struct occupation found = occupation_of(slab);
  uint64_t unused = 0;
  for (size_t strip = 0; strip < hak_kind_strips(slab->kind); ++strip) {
    uint32_t before = blocks_before(slab, strip);
    bool is_uncarved = (slab->uncarved >> strip & 1) != 0;
    bool own = is_uncarved || found.n_free[strip] == blocks_before(slab, strip + 1) - before;
    bool is_entered = slab->first + before * slab->block_bytes > (uint32_t)strip << strip_shift(slab);
    bool entry = strip == 0 || !is_entered || ((found.entered_free | slab->uncarved << 1) >> strip & 1) != 0;
    if (own && entry) unused |= ((uint64_t)1 << strip);
  }
  return unused;
}

// Of `strips`, those that make whole pages of the operating system.
static uint64_t whole_pages(const struct hak_heap *heap, const struct hak_slab *slab, uint64_t strips) {
  size_t n = strips_per_page(heap, slab);
  uint64_t whole = 0;
  for (size_t strip = 0; strip < hak_kind_strips(slab->kind); strip += n) {
    uint64_t page = hak_bits(strip, n);
    if ((strips & page) == page) whole |= page;
  }
  return whole;
}

// Takes the blocks that start in `strips`, which are all free, off the free list.
static void unlink_strips(struct hak_slab *slab, uint64_t strips) {
  uintptr_t kept = 0;
  uintptr_t next;
  for (uintptr_t block = slab->free; block != slab->base; block = next) {
    next = hak_link_get(block);
    if ((strips >> ((uint32_t)(block - slab->base) >> strip_shift(slab)) & 1) == 0) {
      kept = block;
    } else if (kept != 0) {
      hak_link_set(kept, next);
    } else {
      slab->free = next;
    }
  }
}

// Returns the pages of `strips`, in which no block is in use, to the operating system; the number of bytes. The last
// block of a strip may have reached into the next one. If that is not dirty, the block's pages go with the strip's.
static size_t purge_strips(struct hak_heap *heap, struct hak_slab *slab, uint64_t strips) {
  size_t bytes = 0;
  for (uint64_t rest = strips; rest != 0;) {
    size_t first;
    size_t n = hak_lowest_run(rest, &first);
    size_t n_beyond = hak_min(strips_per_page(heap, slab), hak_kind_strips(slab->kind) - first - n);
    if ((slab->dirty & hak_bits(first + n, n_beyond)) != 0) n_beyond = 0;
    void *start = (void *)(slab->base + (first << strip_shift(slab)));
    if (heap->set->pool->os->purge(start, (n + n_beyond) << strip_shift(slab))) {
      slab->dirty &= ~hak_bits(first, n);
      bytes += n << strip_shift(slab);
    }
    rest &= ~hak_bits(first, n);
  }
  hak_retain_lost_pages(&heap->set->pool->retain, bytes);
  hak_limit_give_back(&heap->set->pool->retain.limit, bytes);
  return bytes;
}

size_t hak_strip_purge_uncarved(struct hak_heap *heap, struct hak_slab *slab) {
  // A block may reach into the first one behind a strip that is carved.
  uint64_t unused = slab->uncarved & (slab->uncarved << 1 | 1);
  return purge_strips(heap, slab, whole_pages(heap, slab, unused) & slab->dirty);
}

// Returns the pages inside of free blocks, all but the one that holds the link. Nobody counts them: the strips stay
// dirty.
static void purge_blocks(struct hak_heap *heap, struct hak_slab *slab) {
  const struct hak_os *os = heap->set->pool->os;
  if (slab->block_bytes <= os->page_bytes) return;
  for (uintptr_t block = slab->free; block != slab->base; block = hak_link_get(block)) {
    uintptr_t first = hak_round_up(block + sizeof(uintptr_t), os->page_bytes);
    uintptr_t end = hak_round_down(block + slab->block_bytes, os->page_bytes);
    if (first < end) (void)os->purge((void *)first, end - first);
  }
}

size_t hak_strip_purge(struct hak_heap *heap, struct hak_slab *slab) {
  if (slab->dirty == 0) return 0;
  bool is_empty = slab->state != HAK_SLAB_CURRENT && hak_slab_used(slab) == 0;
  uint64_t unused = is_empty ? hak_kind_strips_all(slab->kind) : unused_strips(slab);
  uint64_t purged = whole_pages(heap, slab, unused) & slab->dirty;
  unlink_strips(slab, purged);
  slab->uncarved |= purged;
  size_t bytes = purge_strips(heap, slab, purged);
  purge_blocks(heap, slab);
  return bytes;
}

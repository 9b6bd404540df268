#include "heap/heap.h"

#include "base/atomic.h"
#include "base/bits.h"
#include "heap/heap_inline.h"
#include "heap/heap_internal.h"
#include "platform/report.h"

// A refill of a hot kind carves this much at most: what is carved is touched.
#define CARVE_BYTES_MAX ((size_t)16 * 1024)

// A kind that has filled this many slabs is hot; one that has filled a SuperSlab gets room for two at a time.
#define HOT_SLABS 2

// Bins

static struct hak_slab **list_of(struct hak_heap *heap, const struct hak_slab *slab) {
  struct hak_bin *bin = &heap->bin[slab->kind];
  return slab->state == HAK_SLAB_ASLEEP ? &bin->asleep : &bin->awake;
}

void hak_bin_link(struct hak_heap *heap, struct hak_slab *slab) {
  struct hak_slab **first = list_of(heap, slab);
  slab->prev = NULL;
  slab->next = *first;
  if (slab->next != NULL) slab->next->prev = slab;
  *first = slab;
}

void hak_bin_unlink(struct hak_heap *heap, struct hak_slab *slab) {
  if (slab->next != NULL) slab->next->prev = slab->prev;
  if (slab->prev != NULL) {
    slab->prev->next = slab->next;
  } else {
    *list_of(heap, slab) = slab->next;
  }
}

static void fall_asleep(struct hak_heap *heap, struct hak_slab *slab) {
  slab->state = HAK_SLAB_ASLEEP;
  slab->countdown = (int32_t)slab->wake;
  hak_bin_link(heap, slab);
}

// Slabs from the pool and back

static void release_slab(struct hak_heap *heap, struct hak_slab *slab) {
  hak_registry_set(slab->base, slab->n_slabs, 0);
  bool spare = slab->n_slabs == 1 && heap->n_spares < HAK_HEAP_SPARES && !heap->set->diet &&
               hak_load_relaxed(&heap->orphan) == 0;
  if (spare) {
    heap->spare[heap->n_spares++] = slab->base;
  } else {
    hak_pool_release(heap->set->pool, slab->base, slab->n_slabs);
  }
}

static struct hak_slab *fresh_slab(struct hak_heap *heap, const struct hak_class *geometry) {
  struct hak_bin *bin = &heap->bin[geometry->kind];
  uintptr_t base;
  if (geometry->n_slabs == 1 && heap->n_spares != 0) {
    base = heap->spare[--heap->n_spares];
  } else {
    bool hot = bin->n_fresh * geometry->n_slabs >= HAK_SUPERSLAB_SLABS;
    base = hak_pool_acquire(heap->set->pool, geometry->n_slabs, hot, NULL);
    if (base == 0) return NULL;
  }
  ++bin->n_fresh;

  struct hak_slab *slab = hak_slab_at(base);
  *slab = (struct hak_slab){
      .free = base,
      .carved_end = geometry->first,
      .block_bytes = geometry->block_bytes,
      .n_blocks = geometry->n_blocks,
      .first = geometry->first,
      .n_slabs = geometry->n_slabs,
      .kind = (uint8_t)geometry->kind,
      .state = HAK_SLAB_AWAKE,
      .wake = (uint32_t)hak_max(geometry->n_blocks / 8, 1),
      .base = base,
  };
  struct hak_slab_remote *remote = hak_slab_remote_at(base);
  remote->base = base;
  remote->n_slabs = geometry->n_slabs;
  hak_store_relaxed(&remote->word, base);
  hak_store_relaxed(&remote->owner, heap);
  hak_registry_set(base, geometry->n_slabs, hak_entry_make(heap->id, geometry->kind));
  return slab;
}

void hak_slab_emptied(struct hak_heap *heap, struct hak_slab *slab) {
  HAK_CHECK(slab->state == HAK_SLAB_AWAKE && slab->countdown == 0);
  // In mail: whoever published last may still be about to link the slab; it comes back here when drained.
  if (hak_load_relaxed(&hak_slab_remote_at(slab->base)->word) != slab->base) return;
  bool only_one = slab->prev == NULL && slab->next == NULL;
  if (only_one && !heap->set->diet && hak_load_relaxed(&heap->orphan) == 0) return;
  hak_bin_unlink(heap, slab);
  release_slab(heap, slab);
}

static void wake(struct hak_heap *heap, struct hak_slab *slab) {
  hak_bin_unlink(heap, slab);
  slab->state = HAK_SLAB_AWAKE;
  slab->countdown += (int32_t)(slab->n_blocks - slab->wake);
  if (hak_load_relaxed(&heap->orphan) != 0) {
    // Nobody would find it in an orphan's bin.
    heap = heap->set->public_heap;
    hak_slab_change_owner(slab, heap);
  }
  hak_bin_link(heap, slab);
}

void hak_slab_credit(struct hak_heap *heap, struct hak_slab *slab, uint32_t n) {
  slab->countdown -= (int32_t)n;
  if (slab->countdown > 0) return;
  if (slab->state == HAK_SLAB_ASLEEP) {
    wake(heap, slab);
    heap = hak_load_relaxed(&hak_slab_remote_at(slab->base)->owner);
  }
  if (slab->countdown == 0) hak_slab_emptied(heap, slab);
}

// Refill

// Links the next blocks of the slab that were never handed out, in address order: as many as begin in one page, since
// those cost one page fault together, or a batch for a hot kind.
static bool carve(struct hak_heap *heap, struct hak_slab *slab, uintptr_t *list) {
  uint32_t end = slab->first + slab->n_blocks * slab->block_bytes;
  if (slab->carved_end == end) return false;
  size_t page_bytes = heap->set->pool->os->page_bytes;
  size_t batch_bytes = 1;
  if (heap->bin[slab->kind].n_fresh >= HOT_SLABS) {
    batch_bytes = hak_min((size_t)heap->set->refill_count * slab->block_bytes, CARVE_BYTES_MAX);
  }
  size_t stop = hak_min(hak_round_up(slab->carved_end + batch_bytes, page_bytes), end);
  uintptr_t block = slab->base + slab->carved_end;
  *list = block;
  while (block + 2 * (uintptr_t)slab->block_bytes <= slab->base + end &&
         block + slab->block_bytes < slab->base + stop) {
    *(uintptr_t *)block = block + slab->block_bytes;
    block += slab->block_bytes;
  }
  *(uintptr_t *)block = slab->base;
  slab->carved_end = (uint32_t)(block + slab->block_bytes - slab->base);
  return true;
}

// Takes what other threads have freed in the current slab; its mail, if any, is drained later and finds nothing.
static bool take_remote(struct hak_slab *slab, uintptr_t *list) {
  uint64_t *word = &hak_slab_remote_at(slab->base)->word;
  uint64_t found = hak_load_relaxed(word);
  if (found >> HAK_REMOTE_COUNT_SHIFT == 0) return false;
  while (!hak_cas_acquire(word, &found, slab->base | (found & HAK_REMOTE_IN_MAIL))) {
  }
  *list = HAK_REMOTE_HEAD(found);
  return true;
}

static bool fill_list(struct hak_heap *heap, struct hak_slab *slab, uintptr_t *list) {
  if (slab->free != slab->base) {
    *list = slab->free;
    slab->free = slab->base;
    return true;
  }
  return take_remote(slab, list) || carve(heap, slab, list);
}

static void make_current(struct hak_heap *heap, struct hak_slab *slab) {
  if (slab->countdown == 0) {
    // Wholly free: hand the blocks out in address order again.
    slab->free = slab->base;
    slab->carved_end = slab->first;
  }
  slab->state = HAK_SLAB_CURRENT;
  slab->countdown = HAK_COUNTDOWN_NEVER;
  heap->bin[slab->kind].current = slab;
}

void hak_bin_return_current(struct hak_heap *heap, size_t kind, uintptr_t *list) {
  struct hak_bin *bin = &heap->bin[kind];
  struct hak_slab *slab = bin->current;
  uint32_t n_free = 0;
  uintptr_t *end = list;
  while ((*end & HAK_SLAB_OFFSET_MASK) != 0) {
    end = (uintptr_t *)*end;
    ++n_free;
  }
  for (uintptr_t block = slab->free; block != slab->base; block = *(uintptr_t *)block) ++n_free;
  *end = slab->free;
  slab->free = *list;
  *list = 0;
  bin->current = NULL;
  bin->n_fresh = 0;

  uint32_t n_used = (slab->carved_end - slab->first) / slab->block_bytes - n_free;
  if (n_used == slab->n_blocks) {
    fall_asleep(heap, slab);
  } else {
    slab->state = HAK_SLAB_AWAKE;
    slab->countdown = (int32_t)n_used;
    hak_bin_link(heap, slab);
  }
}

// When memory has run out: a slab with fewer free blocks than would wake it.
static struct hak_slab *wake_early(struct hak_heap *heap, size_t kind) {
  struct hak_slab *slab = heap->bin[kind].asleep;
  while (slab != NULL && slab->countdown == (int32_t)slab->wake) slab = slab->next;
  if (slab != NULL) wake(heap, slab);
  return slab;
}

// The slab that is to become current, in no list; NULL when memory has run out.
static struct hak_slab *next_slab(struct hak_heap *heap, const struct hak_class *geometry) {
  struct hak_slab *slab = heap->bin[geometry->kind].awake;
  if (slab == NULL) {
    slab = hak_public_take(heap, geometry->kind);
    if (slab == NULL) slab = fresh_slab(heap, geometry);
    if (slab != NULL) return slab;
    slab = wake_early(heap, geometry->kind);
  }
  if (slab != NULL) hak_bin_unlink(heap, slab);
  return slab;
}

bool hak_heap_refill(struct hak_cache *cache, const struct hak_class *geometry) {
  struct hak_heap *heap = cache->heap;
  struct hak_bin *bin = &heap->bin[geometry->kind];
  uintptr_t *list = &cache->list[geometry->kind];
  if (bin->current != NULL && fill_list(heap, bin->current, list)) return true;

  hak_heap_flush(cache);
  hak_mail_drain(heap);
  if (bin->current != NULL && fill_list(heap, bin->current, list)) return true;
  struct hak_slab *slab = next_slab(heap, geometry);
  // Without a successor the current slab stays current: what is freed in it can be had at once.
  if (slab == NULL) return false;
  if (bin->current != NULL) fall_asleep(heap, bin->current);
  make_current(heap, slab);
  return fill_list(heap, slab, list);
}

// Free

HAK_NOINLINE void hak_slab_countdown_slow(struct hak_heap *heap, struct hak_slab *slab) {
  if (slab->state == HAK_SLAB_CURRENT) {
    slab->countdown = HAK_COUNTDOWN_NEVER;  // two billion frees later
  } else {
    hak_slab_credit(heap, slab, 0);
  }
}

// Why hak_heap_free_local has refused an aligned block that this thread owns.
static HAK_COLD HAK_NORETURN void fatal_local(void *p, size_t kind, const char *function) {
  uintptr_t address = (uintptr_t)p;
  struct hak_slab *slab = hak_slab_at(hak_kind_run_base(kind, address));
  bool carved = (uint32_t)(address - slab->base) - slab->first < slab->carved_end - slab->first;
  hak_fatal_misuse(function, p, carved ? HAK_MISUSE_DOUBLE_FREE : HAK_MISUSE_FOREIGN);
}

void hak_heap_free(struct hak_cache *cache, void *p, const char *function) {
  if (HAK_UNLIKELY((uintptr_t)p % HAK_BLOCK_ALIGNMENT != 0)) hak_fatal_misuse(function, p, HAK_MISUSE_UNALIGNED);
  // Read here and not by the caller: before the cache had its heap, the slab may have changed hands.
  uint32_t entry = hak_registry_find(p);
  size_t kind = hak_entry_kind(entry);
  uintptr_t distance = cache->list[kind] ^ (uintptr_t)p;
  if (hak_entry_owner(entry) != cache->owner_id) {
    hak_outbox_add(cache, p, kind, function);
  } else if (HAK_UNLIKELY(!hak_cache_push_run(cache, p, kind, distance) &&
                          !hak_heap_free_local(cache, p, kind, distance))) {
    fatal_local(p, kind, function);
  }
}

// Trim

void hak_heap_trim(struct hak_cache *cache) {
  struct hak_heap *heap = cache->heap;
  hak_heap_flush(cache);
  hak_mail_drain(heap);
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    if (heap->bin[kind].current != NULL) hak_bin_return_current(heap, kind, &cache->list[kind]);
  }
  hak_heap_release_empty(heap);
}

void hak_heap_release_empty(struct hak_heap *heap) {
  for (size_t kind = 0; kind < HAK_KINDS; ++kind) {
    struct hak_slab *next;
    for (struct hak_slab *slab = heap->bin[kind].awake; slab != NULL; slab = next) {
      next = slab->next;
      if (slab->countdown != 0 || hak_load_relaxed(&hak_slab_remote_at(slab->base)->word) != slab->base) continue;
      hak_bin_unlink(heap, slab);
      release_slab(heap, slab);
    }
  }
  while (heap->n_spares != 0) hak_pool_release(heap->set->pool, heap->spare[--heap->n_spares], 1);
}

// Slabs from the pool and back, and those that a heap keeps empty for its next refills.
#include "base/atomic.h"
#include "base/bits.h"
#include "heap/heap_internal.h"

// Spares. All of their pages count as the heap's, and as unused: which were touched is forgotten.

#define SPARE_SLABS_MASK ((uintptr_t)HAK_SLAB_BYTES - 1)

static bool add_spare(struct hak_heap *heap, uintptr_t base, size_t n_slabs) {
  size_t n_all = n_slabs;
  for (size_t i = 0; i < heap->n_spares; ++i) n_all += heap->spare[i] & SPARE_SLABS_MASK;
  if (heap->n_spares == HAK_HEAP_SPARES || n_all > HAK_HEAP_SPARE_SLABS) return false;
  if (!hak_retain_spares(&heap->set->pool->retain, n_slabs * HAK_SLAB_BYTES)) return false;
  hak_add_relaxed(&heap->set->pool->retain.spare_bytes, n_slabs * HAK_SLAB_BYTES);
  heap->spare[heap->n_spares++] = base | n_slabs;
  return true;
}

// What add_spare and its caller have counted.
static void uncount_spare(struct hak_heap *heap, size_t n_slabs) {
  struct hak_retain *retain = &heap->set->pool->retain;
  hak_retain_sub_unused(retain, n_slabs * HAK_SLAB_BYTES);
  hak_sub_relaxed(&retain->spare_bytes, n_slabs * HAK_SLAB_BYTES);
}

// The newest spare of that length; 0 if there is none.
static uintptr_t take_spare(struct hak_heap *heap, size_t n_slabs) {
  size_t i = heap->n_spares;
  do {
    if (i == 0) return 0;
  } while ((heap->spare[--i] & SPARE_SLABS_MASK) != n_slabs);
  uintptr_t base = heap->spare[i] - n_slabs;
  uncount_spare(heap, n_slabs);
  for (--heap->n_spares; i < heap->n_spares; ++i) heap->spare[i] = heap->spare[i + 1];
  heap->least_spares = (uint32_t)hak_min(heap->least_spares, heap->n_spares);
  return base;
}

void hak_spares_release_oldest(struct hak_heap *heap, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    uintptr_t n_slabs = heap->spare[i] & SPARE_SLABS_MASK;
    uncount_spare(heap, n_slabs);
    hak_retain_lost_pages(&heap->set->pool->retain, n_slabs * HAK_SLAB_BYTES);
    hak_pool_release(heap->set->pool, heap->spare[i] - n_slabs, n_slabs, true);
  }
  heap->n_spares -= (uint32_t)n;
  for (size_t i = 0; i < heap->n_spares; ++i) heap->spare[i] = heap->spare[i + n];
}

// Slabs from the pool and back

void hak_slab_release(struct hak_heap *heap, struct hak_slab *slab) {
  struct hak_pool *pool = heap->set->pool;
  size_t n_slabs = hak_kind_run_slabs(slab->kind);
  size_t run_bytes = n_slabs * HAK_SLAB_BYTES;
  size_t dirty_bytes = hak_slab_dirty_bytes(slab);
  hak_registry_set(slab->base, n_slabs, 0);
  bool dirty = hak_pool_count_whole(pool, slab->base, n_slabs, dirty_bytes);
  bool keep = dirty && !heap->set->diet && hak_load_relaxed(&heap->orphan) == 0;
  if (keep && add_spare(heap, slab->base, n_slabs)) {
    if (dirty_bytes != run_bytes) hak_retain_took_pages(&pool->retain, run_bytes - dirty_bytes, 0);
    size_t counted_bytes = slab->counted ? dirty_bytes : 0;
    heap->counted_bytes -= counted_bytes;
    heap->bin[slab->kind].n_counted -= slab->counted;
    if (counted_bytes != run_bytes) hak_retain_add_unused(&pool->retain, run_bytes - counted_bytes);
  } else {
    hak_unused_forget(heap, slab);
    heap->returned_bytes += dirty_bytes;
    hak_retain_lost_pages(&pool->retain, dirty_bytes);
    hak_pool_release(pool, slab->base, n_slabs, dirty);
  }
}

// A kind that has filled so many runs since the last trim is likely to use the next one, and to take many more.
#define WARM_RUNS 4
#define HOT_RUNS 8

static enum hak_demand demand(const struct hak_heap *heap, const struct hak_bin *bin) {
  if (heap->set->diet || bin->n_fresh < WARM_RUNS) return HAK_DEMAND_LITTLE;
  return bin->n_fresh < HOT_RUNS ? HAK_DEMAND_WHOLE : HAK_DEMAND_MANY;
}

// Of the first run of a kind little may be used, and its pages would stay with it. Whether they went back to the
// operating system, so that the run is zero.
static bool purge_first_run(struct hak_heap *heap, const struct hak_class *geometry, uintptr_t base) {
  struct hak_pool *pool = heap->set->pool;
  bool is_first = heap->bin[geometry->kind].n_fresh == 0;
  if (!is_first || hak_load_relaxed(&pool->thp) == HAK_THP_ALWAYS) return false;
  if (!pool->os->purge((void *)base, geometry->n_slabs * HAK_SLAB_BYTES)) return false;
  hak_limit_give_back(&pool->retain.limit, geometry->n_slabs * HAK_SLAB_BYTES);
  return true;
}

struct hak_slab *hak_slab_fresh(struct hak_heap *heap, const struct hak_class *geometry) {
  if (heap->takes_no_runs) return NULL;
  struct hak_bin *bin = &heap->bin[geometry->kind];
  struct hak_retain *retain = &heap->set->pool->retain;
  bool zeroed = false;
  uintptr_t base = take_spare(heap, geometry->n_slabs);
  size_t counted_bytes = base != 0 ? geometry->n_slabs * HAK_SLAB_BYTES : 0;
  if (base == 0) {
    // Address space without pages would be of no use.
    size_t strip_bytes = (size_t)1 << hak_kind_strip_shift(geometry->kind);
    if (hak_limit_refuses(&retain->limit, strip_bytes)) return NULL;
    base = hak_pool_acquire(heap->set->pool, geometry->n_slabs, demand(heap, bin), &zeroed);
    if (base == 0) return NULL;
  }
  if (!zeroed) zeroed = purge_first_run(heap, geometry, base);
  if (zeroed) {
    hak_retain_lost_pages(retain, counted_bytes);
  } else if (counted_bytes == 0) {
    hak_retain_took_pages(retain, geometry->n_slabs * HAK_SLAB_BYTES, 0);
  }
  ++bin->n_fresh;

  struct hak_slab *slab = hak_slab_at(base);
  *slab = (struct hak_slab){
      .free = base,
      .block_bytes = geometry->block_bytes,
      .span = geometry->n_blocks * geometry->block_bytes,
      .n_blocks = (uint16_t)geometry->n_blocks,
      .first = (uint16_t)geometry->first,
      .uncarved = hak_kind_strips_all(geometry->kind),
      .dirty = zeroed ? 0 : hak_kind_strips_all(geometry->kind),
      .kind = (uint8_t)geometry->kind,
      .state = HAK_SLAB_SPARSE,
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

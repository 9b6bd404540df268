// The statistics, gathered from what the tiers know anyway.
#include <stddef.h>

#include "ace/ace.h"
#include "base/atomic.h"
#include "base/compiler.h"
#include "huge/huge.h"
#include "router/hakmem.h"
#include "router/process.h"
#include "superslab/layout.h"
#include "superslab/pool.h"

// ACE's locks are held while the pool is read, so that no SuperSlab changes hands in between.
static void add_slabs(struct hak_process *process, struct hak_stats *stats) {
  hak_ace_lock(&process->ace);
  struct hak_ace_stats ace = hak_ace_stats_locked(&process->ace);
  hak_pool_lock(&process->pool);
  stats->superslab_bytes = hak_load_relaxed(&process->pool.n_superslabs) * HAK_SUPERSLAB_BYTES;
  stats->slab_bytes = hak_load_relaxed(&process->pool.n_slabs_used) * HAK_SLAB_BYTES;
  hak_pool_unlock(&process->pool);
  hak_ace_unlock(&process->ace);
  stats->ace_bytes = ace.superslab_bytes;
  stats->ace_free_bytes = ace.free_bytes;
}

static void add_huge(struct hak_huge_heap *huge, struct hak_stats *stats) {
  hak_huge_lock(huge);
  stats->n_huge = hak_load_relaxed(&huge->n_live);
  stats->huge_bytes = hak_load_relaxed(&huge->live_bytes);
  stats->huge_cached_bytes = huge->cached_bytes + huge->refused_bytes;
  hak_huge_unlock(huge);
}

HAK_EXPORT void hak_stats_read(struct hak_stats *stats) {
  struct hak_process *process = hak_process_get();
  add_slabs(process, stats);
  add_huge(&process->huge, stats);
  stats->held_bytes = hak_load_relaxed(&process->pool.retain.limit.held_bytes);
}

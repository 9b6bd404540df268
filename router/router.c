#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "ace/ace.h"
#include "ace/ace_inline.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "base/poison.h"
#include "heap/heap_inline.h"
#include "huge/huge.h"
#include "mid/mid.h"
#include "platform/os.h"
#include "platform/report.h"
#include "platform/threads.h"
#include "router/background.h"
#include "router/fallback.h"
#include "router/hakmem.h"
#include "router/hardened.h"
#include "router/process.h"
#include "router/router_inline.h"
#include "tiny/tiny.h"

// Each kind of warning is printed this often at most.
#define WARNINGS_MAX 3

// From here on a request is Huge's; a request below that ACE has refused is too.
#define HAK_HUGE_SIZE_MIN HAK_ACE_MAX_BYTES

// Running out

static HAK_COLD void *out_of_memory(struct hak_process *process, size_t size, size_t alignment) {
  if (process->config.allow_malloc_fallback) {
    void *p = hak_fallback_malloc(size, alignment);
    if (p != NULL) return p;
  }
  if (hak_load_relaxed(&process->config.verbose)) {
    static unsigned n_warned;  // atomic
    if (hak_load_relaxed(&n_warned) < WARNINGS_MAX && hak_add_relaxed(&n_warned, 1) < WARNINGS_MAX) {
      hak_report("OOM: All allocation layers failed for size=%zu, returning NULL", size);
      if (!process->config.allow_malloc_fallback) {
        hak_report("WARNING: malloc fallback disabled (size=%zu), returning NULL (OOM)", size);
      }
      const struct hak_limit *limit = &process->pool.retain.limit;
      size_t limit_bytes = hak_load_relaxed(&limit->max_bytes);
      if (limit_bytes != HAK_LIMIT_NONE && !hak_load_relaxed(&limit->soft)) {
        hak_report("WARNING: HAKMEM_LIMIT is %zu bytes, of which %zu are held", limit_bytes,
                   hak_load_relaxed(&limit->held_bytes));
      }
    }
  }
  errno = ENOMEM;
  return NULL;
}

// Allocation: Tiny, Mid, ACE, Huge

// The calling thread's cache of extents; NULL for a thread at whose end nobody would flush it.
static struct hak_ace_cache *ace_cache(void) {
  if (HAK_UNLIKELY(hak_thread_cache.heap == NULL) && !hak_thread_attach()) return NULL;
  return &hak_thread_ace_cache;
}

// Where address space has run out, a class may have blocks while a smaller one finds no run for its first.
static HAK_COLD void *malloc_any_block(struct hak_process *process, struct hak_cache *cache, size_t size) {
  bool is_tiny = size <= HAK_TINY_SIZE_MAX && process->config.tiny_use_superslab;
  void *p = is_tiny ? hak_tiny_malloc_any(cache, size) : NULL;
  return p != NULL ? p : hak_mid_malloc_any(cache, size);
}

// The tiers that work on the thread's cache. `alignment` is a power of two.
static void *malloc_block(struct hak_process *process, size_t size, size_t alignment, bool last_resort) {
  struct hak_cache *cache = &hak_thread_cache;
  if (size > HAK_MID_SIZE_MAX || alignment > HAK_MID_SIZE_MAX) return NULL;
  // A thread that has passed its end borrows a heap for each call.
  bool borrowed = false;
  if (HAK_UNLIKELY(cache->heap == NULL) && !hak_thread_attach()) {
    if (!hak_heap_attach(&process->heaps, cache)) return NULL;
    borrowed = true;
  }
  void *p = NULL;
  if (size <= HAK_TINY_SIZE_MAX && alignment <= HAK_TINY_SIZE_MAX && process->config.tiny_use_superslab) {
    p = alignment <= HAK_BLOCK_ALIGNMENT ? hak_tiny_malloc(cache, size)
                                         : hak_tiny_malloc_aligned(cache, size, alignment);
  }
  if (p == NULL) {
    p = alignment <= HAK_BLOCK_ALIGNMENT ? hak_mid_malloc(cache, size) : hak_mid_malloc_aligned(cache, size, alignment);
  }
  if (HAK_UNLIKELY(p == NULL && last_resort && alignment <= HAK_BLOCK_ALIGNMENT)) {
    p = malloc_any_block(process, cache, size);
  }
  if (HAK_UNLIKELY(borrowed)) hak_heap_detach(cache);
  return p;
}

// One way through all tiers. *zeroed, if not NULL, tells whether the block is known to be zero. What the tiers below
// Huge are for Huge serves only as the `last_resort`: a mapping takes 2 MiB of address space, and perhaps the others
// are refused only for what Huge has cached.
static void *malloc_tiers(struct hak_process *process, size_t size, size_t alignment, bool *zeroed, bool last_resort) {
  if (zeroed != NULL) *zeroed = false;
  void *p = malloc_block(process, size, alignment, last_resort);
  if (HAK_LIKELY(p != NULL)) return p;
  bool is_ace = size < HAK_HUGE_SIZE_MIN && alignment <= HAK_ACE_MAX_ALIGNMENT && process->config.ace_enabled;
  if (is_ace) p = hak_ace_malloc(&process->ace, ace_cache(), size, alignment, zeroed);
  bool is_huge = !is_ace && (size > HAK_MID_SIZE_MAX || alignment > HAK_MID_SIZE_MAX);
  if (p != NULL || !(is_huge || last_resort)) return p;
  return hak_huge_malloc(&process->huge, size, alignment, zeroed);
}

// Hardened: makes the block at `p`, fresh from its tier, one of `size` bytes.
static void seal(void *p, size_t size);

// The same, ready for the program.
static void *malloc_once(struct hak_process *process, size_t size, size_t alignment, bool *zeroed, bool last_resort) {
  if (!HAK_CONFIG_HARDENED) return malloc_tiers(process, size, alignment, zeroed, last_resort);
  void *p = malloc_tiers(process, hak_hardened_bytes(size, HAK_HUGE_SIZE_MIN), alignment, zeroed, last_resort);
  if (p != NULL) seal(p, size);
  return p;
}

// What is handed out, see router_inline.h.
static void *marked(void *p, size_t size) {
  if (HAK_POISON) hak_router_mark_block(p, size);
  return p;
}

// A thread that is refused once and again, and trims each time, must not keep the others from their heaps all the time.
// Where it has, it rests for so many times as long, if that was in vain.
#define REST_PER_TRIM 8
#define REST_NS_MAX 5000000

static void *malloc_after_trim(struct hak_process *process, size_t size, size_t alignment, bool *zeroed) {
  const struct hak_os *os = process->pool.os;
  const uint32_t *n_waits = &process->heaps.n_waits;
  uint32_t n_before = hak_load_relaxed(n_waits);
  uint64_t trim_ns = 0 - os->thread_ns();
  hak_process_trim(0);
  // At the kernel's limit on mappings nothing can be mapped, and what Huge has freed may not be unmapped.
  if (size < HAK_HUGE_SIZE_MIN) (void)hak_huge_give_to_pool(&process->huge);
  void *p = malloc_once(process, size, alignment, zeroed, true);
  trim_ns += os->thread_ns();
  bool rests = p == NULL && hak_load_relaxed(n_waits) != n_before;
  if (rests) hak_sleep_ns(hak_min(trim_ns * REST_PER_TRIM, REST_NS_MAX));
  return p;
}

// What a thread that was served by a slow way does for the process.
static void look_around(struct hak_process *process) {
  hak_background_look_if_wanted(process);
  hak_huge_return_excess(&process->huge);
}

static void *malloc_any(size_t size, size_t alignment, bool *zeroed) {
  struct hak_process *process = hak_process_get();
  hak_process_tick();
  // What exceeds the address space is not worth a trim.
  if (HAK_LIKELY(((size | alignment) >> HAK_ADDRESS_BITS) == 0)) {
    void *p = malloc_once(process, size, alignment, zeroed, false);
    // What one tier keeps for later may be what another one lacks now.
    if (HAK_UNLIKELY(p == NULL)) p = malloc_after_trim(process, size, alignment, zeroed);
    if (HAK_LIKELY(p != NULL)) {
      look_around(process);
      return marked(p, size);
    }
  }
  if (zeroed != NULL) *zeroed = false;
  return out_of_memory(process, size, alignment);
}

HAK_NOINLINE void *hak_router_malloc_slow(size_t size) { return malloc_any(size, HAK_BLOCK_ALIGNMENT, NULL); }

// Mid's blocks and ACE's cached extents are frequent enough to deserve a short way.
HAK_NOINLINE void *hak_router_malloc_large(size_t size) {
  if (HAK_CONFIG_HARDENED) return malloc_any(size, HAK_BLOCK_ALIGNMENT, NULL);
  if (size <= HAK_MID_SIZE_MAX) {
    void *block = hak_cache_pop_recent(&hak_thread_cache, hak_mid_kind(size));
    if (HAK_LIKELY(block != NULL)) return marked(block, size);
  } else {
    void *block = hak_ace_cache_pop(&hak_thread_ace_cache, size);
    if (HAK_LIKELY(block != NULL)) return marked(block, size);
  }
  return malloc_any(size, HAK_BLOCK_ALIGNMENT, NULL);
}

// Ownership

// Whether `p` is taken for a block of libc's malloc: it is none of hakmem's, and a variable allows for such blocks.
static bool is_libcs(struct hak_process *process, const void *p) {
  if (HAK_LIKELY(!process->config.allow_malloc_fallback && !hak_load_relaxed(&process->config.foreign_free_libc))) {
    return false;
  }
  if (hak_registry_find(p) != 0 || hak_huge_misuse_reason(&process->huge, p) != NULL) return false;
  // Constructors of other libraries may come here before our own.
  if (!hak_fallback_found()) hak_fallback_find();
  return hak_fallback_found();
}

// What `p` was allocated as. Not for blocks that libc's malloc may have served.
static uint32_t entry_of_block(const void *p, const char *function) {
  uint32_t entry = hak_registry_find(p);
  if (HAK_UNLIKELY(entry != 0 && (uintptr_t)p % HAK_BLOCK_ALIGNMENT != 0)) {
    hak_fatal_misuse(function, p, HAK_MISUSE_UNALIGNED);
  }
  if (HAK_UNLIKELY(entry == 0)) {
    // Inside a Huge block, of which only the first slab is registered, or freed just now, or not ours at all.
    const char *reason = hak_huge_misuse_reason(&hak_process_get()->huge, p);
    hak_fatal_misuse(function, p, reason != NULL ? reason : HAK_MISUSE_ELSEWHERE);
  }
  return entry;
}

// The bytes of each block of `kind`, of Tiny or Mid.
static HAK_ALWAYS_INLINE size_t bytes_of_kind(size_t kind) {
  return kind <= HAK_KIND_TINY_LAST ? hak_tiny_block_bytes(kind) : hak_mid_block_bytes(kind);
}

// The bytes that the tier has given for `p`.
static size_t block_bytes(const void *p, uint32_t entry, const char *function) {
  size_t kind = hak_entry_kind(entry);
  if (kind <= HAK_KIND_MID_LAST) return bytes_of_kind(kind);
  if (kind == HAK_KIND_ACE) {
    size_t bytes = hak_ace_usable_size(p);
    if (HAK_UNLIKELY(bytes == 0)) hak_ace_misuse(&hak_process_get()->ace, function, p);
    return bytes;
  }
  size_t bytes = hak_huge_usable_size(p);
  if (HAK_UNLIKELY(bytes == 0)) hak_huge_misuse(&hak_process_get()->huge, function, p);
  return bytes;
}

static bool is_sealed(size_t kind) { return HAK_CONFIG_HARDENED && kind != HAK_KIND_HUGE; }

static void seal(void *p, size_t size) {
  uint32_t entry = hak_registry_find(p);
  size_t kind = hak_entry_kind(entry);
  if (is_sealed(kind)) hak_hardened_seal(p, kind, block_bytes(p, entry, "malloc"), size);
}

// The bytes of `p` that the program may use.
static size_t usable_bytes(const void *p, uint32_t entry, const char *function) {
  size_t kind = hak_entry_kind(entry);
  size_t bytes = block_bytes(p, entry, function);
  return is_sealed(kind) ? hak_hardened_size(p, kind, bytes, function) : bytes;
}

void hak_router_mark_block(void *p, size_t size) {
  uint32_t entry = hak_registry_find(p);
  hak_note_block(p, size);
  // What the hardened library has behind a block is its own.
  if (!is_sealed(hak_entry_kind(entry))) hak_poison((char *)p + size, block_bytes(p, entry, "malloc") - size);
}

void hak_router_unmark_block(void *p) {
  uint32_t entry = hak_registry_find(p);
  if (entry == 0 || (uintptr_t)p % HAK_BLOCK_ALIGNMENT != 0) return;
  hak_note_free(p);
  hak_unpoison(p, block_bytes(p, entry, "free"));
}

// Free

// Hardened: checks and unseals the block at `p`. The one to give back to its tier, of the same kind or also of Tiny or
// Mid; NULL if there is none.
static void *take_back(struct hak_process *process, void *p, uint32_t entry, const char *function) {
  size_t kind = hak_entry_kind(entry);
  size_t bytes = block_bytes(p, entry, function);
  size_t size = hak_hardened_unseal(p, kind, bytes, function);
  if (process->config.wipe) memset(p, 0, size);
  return kind <= HAK_KIND_MID_LAST && hak_thread_cache.heap != NULL ? hak_hardened_delay(p, bytes) : p;
}

// Gives the block at `p`, of `entry`, back to its tier.
static void free_to_tier(struct hak_process *process, void *p, uint32_t entry, const char *function) {
  size_t kind = hak_entry_kind(entry);
  if (hak_thread_cache.heap == NULL) hak_thread_frees_without_heap();
  if (is_sealed(kind)) {
    p = take_back(process, p, entry, function);
    if (p == NULL) return;
  }
  if (kind == HAK_KIND_ACE) {
    hak_ace_free(&process->ace, hak_thread_cache.heap == NULL ? NULL : &hak_thread_ace_cache, p);
  } else if (kind == HAK_KIND_HUGE) {
    hak_huge_free(&process->huge, p);
  } else {
    hak_heap_free(&hak_thread_cache, p, function);
  }
}

static HAK_NOINLINE void free_as(void *p, const char *function) {
  if (p == NULL) return;
  struct hak_process *process = hak_process_get();
  if (is_libcs(process, p)) {
    hak_fallback_free(p);
    return;
  }
  free_to_tier(process, p, entry_of_block(p, function), function);
  // Last: it publishes and gives back what was freed just before, by which a double free is known.
  hak_process_tick();
}

// On behalf of `function`, what hak_router_free_cached has left; `kind`, `distance` and `index` are its.
static HAK_ALWAYS_INLINE void free_slow(void *p, size_t kind, uintptr_t distance, uint64_t index,
                                        const char *function) {
  if (HAK_CONFIG_HARDENED) {
    free_as(p, function);  // straight to the checks
    return;
  }
  if (kind == HAK_KIND_ACE) {
    // First: for the others more was tried before.
    if (HAK_UNLIKELY(!hak_ace_cache_push(&hak_thread_ace_cache, p))) free_as(p, function);
    return;
  }
  HAK_HIDE(kind);  // so that the way above needs no copy of it
  struct hak_cache_miss miss = {kind, distance, {&hak_registry, index}};
  if (kind <= HAK_KIND_TINY_LAST) {
    if (HAK_LIKELY(hak_heap_free_fast(&hak_thread_cache, p, miss, HAK_RUN_SHIFT_MIN, HAK_STRIP_SHIFT_MIN))) return;
  } else if (kind <= HAK_KIND_MID_LAST) {
    unsigned run_shift = hak_kind_run_shift(kind);
    if (HAK_LIKELY(hak_heap_free_fast(&hak_thread_cache, p, miss, run_shift, hak_kind_strip_shift(kind)))) return;
  }
  free_as(p, function);
}

HAK_NOINLINE void hak_router_free_slow(void *p, size_t kind, uintptr_t distance, uint64_t index) {
  free_slow(p, kind, distance, index, "free");
}

// As hak_router_free, on behalf of `function`.
static HAK_NOINLINE void free_for(void *p, const char *function) {
  struct hak_cache_miss miss;
  if (!hak_router_free_cached(p, &miss)) free_slow(p, miss.kind, miss.distance, miss.place.index, function);
}

// The public functions

HAK_EXPORT void *hak_malloc(size_t size) { return hak_router_malloc(size); }

HAK_EXPORT void hak_free(void *p) { hak_router_free(p); }

// Below this to ask which pages hold memory does not pay.
#define ASKED_BYTES_MIN ((size_t)256 * 1024)
// Pages are given back, to be zero when they are next touched, where no more than this part of a block has memory.
#define SPARSE_PART 8

// Whether so few of the pages were in memory that they have been given back.
static bool clear_sparse(const struct hak_os *os, char *pages, size_t bytes) {
  return os->resident_bytes(pages, bytes) <= bytes / SPARSE_PART && os->purge(pages, bytes);
}

// Makes block `p` zero.
static void clear(const struct hak_os *os, char *p, size_t bytes) {
  size_t head_bytes = hak_round_up((uintptr_t)p, os->page_bytes) - (uintptr_t)p;
  size_t whole_bytes = hak_round_down(bytes - head_bytes, os->page_bytes);
  if (bytes < ASKED_BYTES_MIN || !clear_sparse(os, p + head_bytes, whole_bytes)) {
    memset(p, 0, bytes);
    return;
  }
  memset(p, 0, head_bytes);
  memset(p + head_bytes + whole_bytes, 0, bytes - head_bytes - whole_bytes);
}

HAK_EXPORT void *hak_calloc(size_t n, size_t size) {
  size_t bytes;
  if (HAK_UNLIKELY(__builtin_mul_overflow(n, size, &bytes))) {
    errno = ENOMEM;
    return NULL;
  }
  if (bytes <= HAK_MID_SIZE_MAX) {
    void *p = hak_router_malloc(bytes);
    return p == NULL ? NULL : memset(p, 0, bytes);
  }
  bool zeroed;
  void *p = malloc_any(bytes, HAK_BLOCK_ALIGNMENT, &zeroed);
  if (p == NULL) return NULL;
  hak_unpoison(p, bytes);  // memcheck takes it for undefined
  if (!zeroed) clear(hak_process_get()->pool.os, p, bytes);
  return p;
}

// Makes block `p` as short as its own tier can, where the tier of `size` has no memory.
static HAK_COLD void shrink(void *p, size_t size) {
  struct hak_process *process = hak_process_get();
  size_t kind = hak_registry_kind(p);
  if (is_sealed(kind)) return;
  if (kind == HAK_KIND_ACE) (void)hak_ace_resize(&process->ace, p, size);
  if (kind == HAK_KIND_HUGE) (void)hak_huge_resize(&process->huge, p, size, false);
}

// Moves `bytes` bytes of block `p` into the block `moved`.
static void *move_into(void *moved, void *p, size_t bytes) {
  memcpy(moved, p, bytes);
  free_for(p, "realloc");
  return moved;
}

// Moves the content of block `p` of `old_bytes` into a block for `size` bytes.
static void *move(void *p, size_t old_bytes, size_t size) {
  bool grows = size > old_bytes;
  int saved_errno = grows ? 0 : errno;
  void *moved = hak_router_malloc(size);
  if (HAK_UNLIKELY(moved == NULL)) {
    if (grows) return NULL;
    // A block that cannot move is large enough.
    shrink(p, size);
    errno = saved_errno;
    return p;
  }
  return move_into(moved, p, hak_min(old_bytes, size));
}

// Whether a block of `bytes` would be mostly empty with `size` of them in use. Half of a size that has a block of its
// own is not, however little longer than that the block is; nor is the smallest block.
static bool is_mostly_empty(size_t bytes, size_t size) {
  return bytes > HAK_BLOCK_ALIGNMENT && size < bytes / 2 - bytes / 64;
}

// Hardened: resizes the block at `p` where it is, unless it would be mostly empty or the seal finds no room.
static bool resize_sealed(struct hak_process *process, void *p, uint32_t entry, size_t old_size, size_t size) {
  size_t bytes = block_bytes(p, entry, "realloc");
  if (hak_hardened_bytes(size, HAK_HUGE_SIZE_MIN) > bytes || is_mostly_empty(bytes, size)) return false;
  if (process->config.wipe && size < old_size) memset((char *)p + size, 0, old_size - size);
  hak_hardened_seal(p, hak_entry_kind(entry), bytes, size);
  return true;
}

// Whether `size` bytes are to stay in a block of Tiny or Mid of `bytes`.
static bool may_stay(size_t bytes, size_t size) { return size <= bytes && !is_mostly_empty(bytes, size); }

// What a block of Huge may become without a move: half of its least size, or one that goes up and down there would be
// copied each time.
static size_t huge_size_kept(const struct hak_process *process) {
  return process->config.ace_enabled ? HAK_HUGE_SIZE_MIN / 2 : HAK_MID_SIZE_MAX + 1;
}

// The block at `p` with room for `size` bytes, without a copy; NULL if that cannot be.
static void *resize(struct hak_process *process, void *p, uint32_t entry, size_t old_bytes, size_t size) {
  size_t kind = hak_entry_kind(entry);
  if (is_sealed(kind)) {
    if (resize_sealed(process, p, entry, old_bytes, size)) return p;
  } else if (kind <= HAK_KIND_MID_LAST) {
    if (may_stay(old_bytes, size)) return p;
  } else if (kind == HAK_KIND_ACE) {
    if (size > HAK_MID_SIZE_MAX && hak_ace_resize(&process->ace, p, size)) return p;
  } else if (size <= PTRDIFF_MAX && size >= huge_size_kept(process)) {
    return hak_huge_resize(&process->huge, p, size, true);
  }
  return NULL;
}

// Whether HAKMEM_LIMIT stands in the way of a block that is to grow: a copy would need even more.
static bool is_short_of(struct hak_process *process, size_t size, size_t old_size) {
  return size > old_size && size >> HAK_ADDRESS_BITS == 0 &&
         hak_limit_refuses(&process->pool.retain.limit, size - old_size);
}

static HAK_NOINLINE void *realloc_any(void *p, size_t size) {
  struct hak_process *process = hak_process_get();
  if (is_libcs(process, p)) return hak_fallback_realloc(p, size);
  uint32_t entry = entry_of_block(p, "realloc");
  size_t old_bytes = usable_bytes(p, entry, "realloc");
  if (size == 0) {
    free_for(p, "realloc");
    return NULL;
  }
  if (HAK_POISON) hak_router_unmark_block(p);
  void *resized = resize(process, p, entry, old_bytes, size);
  if (resized == NULL && hak_entry_kind(entry) > HAK_KIND_MID_LAST && is_short_of(process, size, old_bytes)) {
    hak_process_trim(0);
    resized = resize(process, p, entry, old_bytes, size);
  }
  if (HAK_POISON) {
    void *block = resized != NULL ? resized : p;
    size_t bytes = resized != NULL ? size : old_bytes;
    hak_router_mark_block(block, bytes);
    hak_unpoison(block, bytes);  // memcheck takes it for undefined
  }
  return resized != NULL ? resized : move(p, old_bytes, size);
}

// What the public functions find out about a block of Tiny or Mid, which are frequent enough to deserve a short way:
// its bytes. 0 for every other pointer, and where there is more to be done.
static HAK_ALWAYS_INLINE size_t plain_block_bytes(const void *p) {
  size_t kind = hak_registry_kind(p);  // which looks at no bits of `p` beyond an address
  bool is_block = kind != HAK_KIND_NONE && kind <= HAK_KIND_MID_LAST && hak_distance_is_of_block((uintptr_t)p);
  return HAK_CONFIG_HARDENED || HAK_POISON || !is_block ? 0 : bytes_of_kind(kind);
}

// A block for `size` bytes, HAK_MID_SIZE_MAX at most, more than are needed: NULL on a diet, and where memory is short.
static void *malloc_more(size_t size) {
  struct hak_process *process = hak_process_get();
  if (process->config.tiny_mem_diet) return NULL;
  struct hak_cache *cache = &hak_thread_cache;
  bool is_tiny = size <= HAK_TINY_SIZE_MAX;
  void *p = is_tiny ? hak_cache_pop(cache, hak_tiny_kind(size)) : hak_cache_pop_recent(cache, hak_mid_kind(size));
  if (HAK_LIKELY(p != NULL)) return p;
  hak_process_tick();
  p = malloc_block(process, size, HAK_BLOCK_ALIGNMENT, false);
  if (p != NULL) look_around(process);
  return p;
}

// A block that grows becomes longer by this part of it at least: a program that appends piece by piece would have it
// copied each time. (As in gperftools' tcmalloc.)
#define GROWTH_DIVISOR 4

static void *move_plain(void *p, size_t bytes, size_t size) {
  size_t least = hak_min(bytes + bytes / GROWTH_DIVISOR, HAK_MID_SIZE_MAX);
  void *longer = size > bytes && size < least ? malloc_more(least) : NULL;
  return longer != NULL ? move_into(longer, p, bytes) : move(p, bytes, size);
}

HAK_EXPORT void *hak_realloc(void *p, size_t size) {
  if (p == NULL) return hak_router_malloc(size);
  size_t bytes = plain_block_bytes(p);
  if (bytes == 0 || size == 0) return realloc_any(p, size);
  return may_stay(bytes, size) ? p : move_plain(p, bytes, size);
}

HAK_EXPORT void *hak_reallocarray(void *p, size_t n, size_t size) {
  size_t bytes;
  if (HAK_UNLIKELY(__builtin_mul_overflow(n, size, &bytes))) {
    errno = ENOMEM;
    return NULL;
  }
  return hak_realloc(p, bytes);
}

// A block out of the thread's caches; NULL if they have none that will do. `alignment` is a power of two.
static HAK_ALWAYS_INLINE void *aligned_cached(size_t size, size_t alignment) {
  if (HAK_CONFIG_HARDENED) return NULL;
  if (size > HAK_MID_SIZE_MAX) {
    return alignment <= HAK_ACE_PAGE_BYTES ? hak_ace_cache_pop(&hak_thread_ace_cache, size) : NULL;
  }
  if (alignment > HAK_MID_SIZE_MAX) return NULL;
  size_t mid_kind = hak_mid_kind_aligned(size, alignment);
  if (HAK_UNLIKELY(mid_kind > HAK_KIND_MID_LAST)) return NULL;
  return hak_cache_pop_either(&hak_thread_cache, hak_tiny_kind_aligned(size, alignment), mid_kind);
}

HAK_EXPORT void *hak_aligned_alloc(size_t alignment, size_t size) {
  if (HAK_UNLIKELY(!hak_is_power_of_two(alignment))) {
    errno = EINVAL;
    return NULL;
  }
  void *p = aligned_cached(size, alignment);
  return HAK_LIKELY(p != NULL) ? marked(p, size) : malloc_any(size, alignment, NULL);
}

static HAK_NOINLINE int posix_memalign_slow(void **out, size_t alignment, size_t size) {
  int saved_errno = errno;
  void *p = malloc_any(size, alignment, NULL);
  errno = saved_errno;
  if (p == NULL) return ENOMEM;
  *out = p;
  return 0;
}

HAK_EXPORT int hak_posix_memalign(void **out, size_t alignment, size_t size) {
  if (HAK_UNLIKELY(!hak_is_power_of_two(alignment) || alignment % sizeof(void *) != 0)) return EINVAL;
  void *p = aligned_cached(size, alignment);
  if (HAK_LIKELY(p != NULL)) {
    *out = marked(p, size);
    return 0;
  }
  return posix_memalign_slow(out, alignment, size);
}

static HAK_NOINLINE size_t usable_size_any(const void *p) {
  if (p == NULL) return 0;
  if (is_libcs(hak_process_get(), p)) return hak_fallback_usable_size(p);
  size_t bytes = usable_bytes(p, entry_of_block(p, "malloc_usable_size"), "malloc_usable_size");
  hak_unpoison(p, bytes);  // who asks may use it
  return bytes;
}

HAK_EXPORT size_t hak_usable_size(const void *p) {
  size_t bytes = plain_block_bytes(p);
  return HAK_LIKELY(bytes != 0) ? bytes : usable_size_any(p);
}

HAK_EXPORT size_t hak_trim(size_t pad) {
  (void)hak_process_get();
  hak_os_count_begin();
  hak_process_trim(pad);
  return hak_os_count_end();
}

HAK_EXPORT int hak_set(const char *name, const char *value) {
  (void)hak_process_get();
  return hak_process_set(name, value);
}

HAK_EXPORT long long hak_get(const char *name) { return hak_config_get(&hak_process_get()->config, name); }

HAK_EXPORT const char *hak_owner(const void *p) {
  size_t kind = hak_entry_kind(hak_registry_find(p));
  if (kind == HAK_KIND_NONE) {
    // Of a Huge block only the first slab is registered.
    return hak_huge_owns(&hak_process_get()->huge, p) ? "huge" : NULL;
  }
  if (kind <= HAK_KIND_TINY_LAST) return "tiny";
  if (kind <= HAK_KIND_MID_LAST) return "mid";
  return kind == HAK_KIND_ACE ? "ace" : "huge";
}

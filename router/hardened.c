#include "router/hardened.h"

#include <stdint.h>
#include <string.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "heap/heap.h"
#include "heap/slab.h"
#include "platform/os.h"
#include "platform/report.h"
#include "platform/secret.h"
#include "superslab/layout.h"
#include "superslab/registry.h"

// Blocks in use

static bool has_bit(size_t kind) { return kind != HAK_KIND_HUGE; }

static uint64_t *in_use_word(const void *p) {
  return &hak_region_of((uintptr_t)p)->in_use[(uint32_t)(uintptr_t)p >> HAK_IN_USE_WORD_SHIFT];
}

static uint64_t in_use_bit(const void *p) { return (uint64_t)1 << ((uintptr_t)p / HAK_IN_USE_GRANULE % 64); }

// Why a pointer to no block in use was refused.
static HAK_COLD HAK_NORETURN void fatal_not_in_use(const void *p, size_t kind, size_t block_bytes,
                                                   const char *function) {
  // Of ACE, the tier has found that a block starts there.
  if (kind == HAK_KIND_ACE) hak_fatal_misuse(function, p, HAK_MISUSE_DOUBLE_FREE);
  struct hak_class geometry = hak_class_make((uint32_t)kind, (uint32_t)block_bytes);
  uint32_t offset = (uint32_t)((uintptr_t)p - hak_kind_run_base(kind, (uintptr_t)p)) - geometry.first;
  const char *reason = HAK_MISUSE_DOUBLE_FREE;
  if (offset % geometry.block_bytes != 0) reason = HAK_MISUSE_NOT_START;
  if (offset / geometry.block_bytes >= geometry.n_blocks) reason = HAK_MISUSE_FOREIGN;
  hak_fatal_misuse(function, p, reason);
}

// Seals

static uint64_t *seal_of(const void *p, size_t block_bytes) {
  return (uint64_t *)((uintptr_t)p + block_bytes - sizeof(uint64_t));
}

struct canary {
  uint64_t words[2];
};

// No byte of it is 0, so that the end of a string written too far always shows.
static struct canary canary_of(const void *p) {
  uint64_t word = hak_secret_hash((uintptr_t)p) | 0x0101010101010101;
  return (struct canary){{word, word}};
}

static size_t canary_bytes(size_t block_bytes, size_t size) {
  return hak_min(block_bytes - sizeof(uint64_t) - size, sizeof(struct canary));
}

static size_t sealed_size(const void *p, size_t block_bytes, const char *function) {
  uint64_t size = hak_secret_decode((uintptr_t)p, *seal_of(p, block_bytes));
  struct canary canary = canary_of(p);
  bool intact = size <= block_bytes - sizeof(uint64_t) &&
                memcmp((const char *)p + size, &canary, canary_bytes(block_bytes, size)) == 0;
  if (HAK_UNLIKELY(!intact)) hak_fatal_misuse(function, p, HAK_MISUSE_OVERFLOW);
  return size;
}

void hak_hardened_seal(void *p, size_t kind, size_t block_bytes, size_t size) {
  *seal_of(p, block_bytes) = hak_secret_encode((uintptr_t)p, size);
  struct canary canary = canary_of(p);
  memcpy((char *)p + size, &canary, canary_bytes(block_bytes, size));
  // Relaxed: the bit's other users have the pointer from the program, and so, by its own synchronisation, the rest.
  if (has_bit(kind)) (void)__atomic_fetch_or(in_use_word(p), in_use_bit(p), __ATOMIC_RELAXED);
}

size_t hak_hardened_size(const void *p, size_t kind, size_t block_bytes, const char *function) {
  if (HAK_UNLIKELY(has_bit(kind) && (hak_load_relaxed(in_use_word(p)) & in_use_bit(p)) == 0)) {
    fatal_not_in_use(p, kind, block_bytes, function);
  }
  return sealed_size(p, block_bytes, function);
}

size_t hak_hardened_unseal(void *p, size_t kind, size_t block_bytes, const char *function) {
  if (has_bit(kind)) {
    uint64_t found = __atomic_fetch_and(in_use_word(p), ~in_use_bit(p), __ATOMIC_RELAXED);
    if (HAK_UNLIKELY((found & in_use_bit(p)) == 0)) fatal_not_in_use(p, kind, block_bytes, function);
  }
  return sealed_size(p, block_bytes, function);
}

// Delayed reuse

// A freed block first takes the place of another one drawn at random, which then waits in line: so it comes back after
// LINE_BLOCKS frees of the thread at least, and nobody can tell after how many.
#define DRAWN_BLOCKS_SHIFT 7
#define DRAWN_BLOCKS ((size_t)1 << DRAWN_BLOCKS_SHIFT)
#define LINE_BLOCKS 64

// What is larger goes back at once: what a thread keeps is less than 1 MiB. The blocks for 4 KiB are the last.
#define DELAYED_BYTES_MAX 4160

struct delayed {
  uint64_t random;  // 0: not drawn yet
  size_t next;
  void *drawn[DRAWN_BLOCKS];
  void *line[LINE_BLOCKS];
};

static __thread struct delayed delayed HAK_TLS_MODEL;

static void *exchange(void **place, void *p) {
  void *found = *place;
  *place = p;
  return found;
}

// Marsaglia's xorshift; never 0.
static uint64_t draw(struct delayed *state) {
  uint64_t random = state->random;
  if (random == 0) random = hak_os_random() | 1;
  random ^= random << 13;
  random ^= random >> 7;
  random ^= random << 17;
  state->random = random;
  return random;
}

void *hak_hardened_delay(void *p, size_t block_bytes) {
  if (block_bytes > DELAYED_BYTES_MAX) return p;
  struct delayed *state = &delayed;
  p = exchange(&state->drawn[draw(state) >> (64 - DRAWN_BLOCKS_SHIFT)], p);
  return p == NULL ? NULL : exchange(&state->line[state->next++ % LINE_BLOCKS], p);
}

static void flush(struct hak_cache *cache, void **places, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    void *p = exchange(&places[i], NULL);
    if (p != NULL) hak_heap_free(cache, p, "free");
  }
}

void hak_hardened_flush(struct hak_cache *cache) {
  flush(cache, delayed.line, LINE_BLOCKS);
  flush(cache, delayed.drawn, DRAWN_BLOCKS);
}

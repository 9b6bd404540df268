// The limit to measure against: an allocator for benches that does the least conceivable work. Each thread has one list
// of free blocks per size class; malloc pops, free pushes. There is no owner, so a block stays with the thread that
// freed it and never comes back to the one that will need it; nothing is returned to the system, merged, or checked. It
// shows how far a row is from what a thread-local allocator could reach, and is of no other use.
//
// All memory comes out of one reservation, 64 KiB chunks of one class each; a table has the class of every chunk.
#define _DEFAULT_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  CHUNK_SHIFT = 16,
  RESERVED_SHIFT = 42,
  N_FINE_CLASSES = 65,  // 16 B apart, 0 to 1 KiB; then four per doubling
  LARGEST_CLASS = N_FINE_CLASSES + 4 * (RESERVED_SHIFT - 10) - 1,
  N_CLASSES = N_FINE_CLASSES + 4 * (64 - 10),  // any size has a class; the lists of those beyond stay empty
};

static const size_t CHUNK_BYTES = (size_t)1 << CHUNK_SHIFT;
static const size_t RESERVED_BYTES = (size_t)1 << RESERVED_SHIFT;

#define EXPORTED __attribute__((visibility("default")))
#define SLOW __attribute__((noinline, cold))

struct block {
  struct block *next;
};

// What a thread has. It outlives the thread and serves a later one: otherwise, a program that starts many threads would
// run out of memory.
struct cache {
  struct block *free[N_CLASSES];
  char *fresh[N_CLASSES];  // the part of a chunk that was never handed out
  char *fresh_end[N_CLASSES];
  struct cache *next;  // in `unused_caches`
};

static struct cache no_cache;  // of a thread that has none yet: always empty, so that malloc need not ask
static __thread struct cache *thread_cache = &no_cache;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_end;
static pthread_mutex_t unused_lock = PTHREAD_MUTEX_INITIALIZER;
static struct cache *unused_caches;

static char *reservation;
static _Atomic size_t n_used_bytes;
static unsigned char class_of_chunk[1 << (RESERVED_SHIFT - CHUNK_SHIFT)];

static inline unsigned class_of_size(size_t size) {
  if (__builtin_expect(size <= 1024, 1)) return (unsigned)((size + 15) >> 4);
  const unsigned shift = 61 - (unsigned)__builtin_clzl(size - 1);
  return N_FINE_CLASSES + 4 * (shift - 8) + (unsigned)((size - 1) >> shift) - 4;
}

static inline size_t size_of_class(unsigned size_class) {
  if (size_class == 0) return 16;
  if (size_class < N_FINE_CLASSES) return (size_t)size_class << 4;
  const unsigned step = size_class - N_FINE_CLASSES;
  return (size_t)(step % 4 + 5) << (8 + step / 4);
}

static inline size_t chunk_index(const void *p) { return (size_t)((const char *)p - reservation) >> CHUNK_SHIFT; }
static inline size_t size_of_block(const void *p) { return size_of_class(class_of_chunk[chunk_index(p)]); }

static inline bool is_power_of_two(size_t n) { return (n & (n - 1)) == 0; }
static inline size_t round_up(size_t n, size_t unit) { return (n + unit - 1) & ~(unit - 1); }

// Whole chunks, zero; those of a power of two are aligned to it. NULL when the reservation is used up.
static void *take_chunks(size_t size) {
  const size_t bytes = round_up(size, CHUNK_BYTES);
  const size_t alignment = is_power_of_two(bytes) ? bytes : CHUNK_BYTES;
  size_t used = atomic_load_explicit(&n_used_bytes, memory_order_relaxed);
  size_t begin;
  do {
    begin = round_up(used, alignment);
    if (begin + bytes > RESERVED_BYTES) return NULL;
  } while (!atomic_compare_exchange_weak_explicit(&n_used_bytes, &used, begin + bytes, memory_order_relaxed,
                                                  memory_order_relaxed));
  return reservation + begin;
}

static void end_thread(void *cache) {
  thread_cache = &no_cache;
  pthread_mutex_lock(&unused_lock);
  ((struct cache *)cache)->next = unused_caches;
  unused_caches = cache;
  pthread_mutex_unlock(&unused_lock);
}

static void reserve(void) {
  // Twice as much as is used, so that a part is aligned to its own size.
  char *mapping =
      mmap(NULL, 2 * RESERVED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED || pthread_key_create(&thread_end, end_thread) != 0) __builtin_trap();
  reservation = (char *)round_up((size_t)mapping, RESERVED_BYTES);
}

static struct cache *get_cache(void) {
  if (thread_cache != &no_cache) return thread_cache;
  pthread_once(&once, reserve);
  pthread_mutex_lock(&unused_lock);
  struct cache *cache = unused_caches;
  if (cache != NULL) unused_caches = cache->next;
  pthread_mutex_unlock(&unused_lock);
  if (cache == NULL) cache = take_chunks(sizeof(struct cache));
  if (cache == NULL) __builtin_trap();
  thread_cache = cache;
  pthread_setspecific(thread_end, cache);
  return cache;
}

// A block that was never handed out, and is zero.
SLOW static void *carve(unsigned size_class) {
  struct cache *cache = get_cache();
  if (size_class > LARGEST_CLASS) {
    errno = ENOMEM;
    return NULL;
  }
  const size_t size = size_of_class(size_class);
  if (cache->fresh[size_class] == NULL || cache->fresh[size_class] + size > cache->fresh_end[size_class]) {
    char *chunks = take_chunks(size);
    if (chunks == NULL) {
      errno = ENOMEM;
      return NULL;
    }
    class_of_chunk[chunk_index(chunks)] = (unsigned char)size_class;
    cache->fresh[size_class] = chunks;
    cache->fresh_end[size_class] = chunks + round_up(size, CHUNK_BYTES);
  }
  char *block = cache->fresh[size_class];
  cache->fresh[size_class] += size;
  return block;
}

static inline void *pop(struct cache *cache, unsigned size_class) {
  struct block *block = cache->free[size_class];
  if (block != NULL) cache->free[size_class] = block->next;
  return block;
}

EXPORTED void *malloc(size_t size) {
  const unsigned size_class = class_of_size(size);
  void *block = pop(thread_cache, size_class);
  return __builtin_expect(block != NULL, 1) ? block : carve(size_class);
}

static inline void push(struct cache *cache, struct block *block) {
  const unsigned size_class = class_of_chunk[chunk_index(block)];
  block->next = cache->free[size_class];
  cache->free[size_class] = block;
}

SLOW static void free_first(void *p) { push(get_cache(), p); }

EXPORTED void free(void *p) {
  if (p == NULL) return;
  struct cache *cache = thread_cache;
  if (__builtin_expect(cache != &no_cache, 1)) {
    push(cache, p);
  } else {
    free_first(p);
  }
}

EXPORTED void *calloc(size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes)) bytes = SIZE_MAX;
  const unsigned size_class = class_of_size(bytes);
  void *block = pop(thread_cache, size_class);
  return block != NULL ? memset(block, 0, bytes) : carve(size_class);
}

EXPORTED void *realloc(void *p, size_t size) {
  if (p == NULL) return malloc(size);
  if (size == 0) {
    free(p);
    return NULL;
  }
  const size_t old_size = size_of_block(p);
  if (size_of_class(class_of_size(size)) == old_size) return p;
  void *block = malloc(size);
  if (block == NULL) return NULL;
  memcpy(block, p, old_size < size ? old_size : size);
  free(p);
  return block;
}

EXPORTED int posix_memalign(void **result, size_t alignment, size_t size) {
  if (!is_power_of_two(alignment) || alignment % sizeof(void *) != 0) return EINVAL;
  size_t bytes = size > alignment ? size : alignment;
  if (bytes > RESERVED_BYTES / 2) return ENOMEM;
  // A block whose size is a power of two is aligned to it.
  if (alignment > 16 && !is_power_of_two(bytes)) bytes = (size_t)1 << (64 - __builtin_clzl(bytes));
  *result = malloc(bytes);
  return *result != NULL ? 0 : ENOMEM;
}

EXPORTED void *aligned_alloc(size_t alignment, size_t size) {
  void *block = NULL;
  const int error = posix_memalign(&block, alignment < sizeof(void *) ? sizeof(void *) : alignment, size);
  if (error != 0) errno = error;
  return block;
}

EXPORTED void *memalign(size_t alignment, size_t size) { return aligned_alloc(alignment, size); }

EXPORTED size_t malloc_usable_size(void *p) { return p != NULL ? size_of_block(p) : 0; }

// For the proof that a bench runs on it.
EXPORTED bool limit_owns(const void *p);
bool limit_owns(const void *p) {
  return reservation != NULL && (const char *)p >= reservation && (const char *)p < reservation + n_used_bytes;
}

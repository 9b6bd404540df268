#define _GNU_SOURCE  // secure_getenv
#include "router/process.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "platform/lock.h"
#include "platform/os.h"
#include "router/background.h"
#include "router/fallback.h"
#include "router/hardened.h"

HAK_HIDDEN __thread struct hak_cache hak_thread_cache HAK_TLS_MODEL = HAK_CACHE_INIT;
HAK_HIDDEN __thread struct hak_ace_cache hak_thread_ace_cache HAK_TLS_MODEL;

// The calling thread's end was announced, see thread_ends.
static __thread bool ended HAK_TLS_MODEL;

// The operating system of the process: the kernel, or what a test composes the router over.
#ifndef HAK_PROCESS_OS
#define HAK_PROCESS_OS hak_os_linux
#endif
const struct hak_os *HAK_PROCESS_OS(void);

// Slow calls of a thread per look at the clock, and milliseconds between two ticks of the process.
#define TICK_CALLS 64
#define TICK_MS 10

static struct hak_process process;
static bool process_ready;  // atomic
static bool exit_key_made;
static pthread_key_t exit_key;

// Process

static const char *get_variable(const char *name) { return secure_getenv(name); }

// Both are in the thread-local memory of one library, so they lie equally far apart in every thread.
static struct hak_ace_cache *ace_cache_beside(struct hak_cache *cache) {
  uintptr_t own = (uintptr_t)&hak_thread_cache;
  uintptr_t own_ace = (uintptr_t)&hak_thread_ace_cache;
  // Linkers do not know how to relax a subtraction of thread-local offsets.
  HAK_KEEP_AS_BASE(own);
  HAK_KEEP_AS_BASE(own_ace);
  return (struct hak_ace_cache *)((uintptr_t)cache + (own_ace - own));
}

static void flush_ace_cache_beside(struct hak_cache *cache) {
  hak_ace_cache_flush(&process.ace, ace_cache_beside(cache));
}

// All locks are taken before a fork, in the order of their ranks, so that the child finds every structure whole.
#define ALL_LOCKS process.heaps.visit_lock, process.heaps.lock, process.huge.lock, process.pool.lock

static void before_fork(void) HAK_ACQUIRES(ALL_LOCKS) {
  hak_heap_set_before_fork(&process.heaps, &hak_thread_cache);
  hak_ace_lock(&process.ace);
  hak_huge_lock(&process.huge);
  hak_pool_lock(&process.pool);
  hak_lock_all_held = true;
}

static void unlock_tiers(void) HAK_RELEASES(process.huge.lock, process.pool.lock) {
  hak_pool_unlock(&process.pool);
  hak_huge_unlock(&process.huge);
  hak_ace_unlock(&process.ace);
}

static void after_fork_in_parent(void) HAK_RELEASES(ALL_LOCKS) {
  hak_lock_all_held = false;
  unlock_tiers();
  hak_heap_set_after_fork_in_parent(&process.heaps);
}

static void after_fork_in_child(void) HAK_RELEASES(ALL_LOCKS) {
  hak_heap_set_orphan_all(&process.heaps, &hak_thread_cache, flush_ace_cache_beside);
  hak_lock_all_held = false;
  unlock_tiers();
  hak_heap_set_after_fork_in_child(&process.heaps);
  hak_background_forget();
}

static void thread_ends(void *thread);

// Returns whether it was this call that made it.
static bool make_process(void) {
  static struct hak_mutex lock = HAK_MUTEX_INIT;
  hak_lock(&lock);
  bool make = !process_ready;
  if (make) {
    process.config = hak_config_read(get_variable);
    bool diet = process.config.tiny_mem_diet != 0;
    hak_pool_init(&process.pool, HAK_PROCESS_OS());
    process.pool.retain.delay_ms = diet ? 0 : process.config.purge_delay_ms;
    if (process.pool.retain.delay_ms == 0) process.pool.retain.min_bytes = 0;
    hak_heap_set_init(&process.heaps, &process.pool, process.config.tiny_refill_count_hot, diet);
    hak_ace_init(&process.ace, &process.pool, diet);
    hak_huge_init(&process.huge, &process.pool, diet);
    exit_key_made = pthread_key_create(&exit_key, thread_ends) == 0;
    // Release: pairs with hak_process_get, publishes all of the above.
    hak_store_release(&process_ready, true);
  }
  hak_unlock(&lock);
  return make;
}

// Fork handlers are registered with the first malloc and not by a constructor, before which other libraries'
// constructors may have started threads and forked. Their order among other handlers does not matter (platform/lock.h).
// Registering may itself allocate, which works by now.
static HAK_COLD void begin_process(void) {
  if (make_process()) (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

struct hak_process *hak_process_get(void) {
  if (HAK_UNLIKELY(!hak_load_acquire(&process_ready))) begin_process();
  return &process;
}

// For programs that fork, or start threads, before they allocate; and what may allocate waits until the program is up:
// looking for libc's malloc.
__attribute__((constructor)) static void program_is_up(void) {
  (void)hak_process_get();
  if (process.config.allow_malloc_fallback) hak_fallback_find();
}

void hak_process_decay(void) {
  hak_heap_set_tick(&process.heaps, &hak_thread_cache);
  hak_pool_tick(&process.pool);
  hak_ace_tick(&process.ace, hak_thread_cache.heap == NULL ? NULL : &hak_thread_ace_cache);
  hak_huge_tick(&process.huge);
}

// What stays unused goes back also where its own tier is not asked any more.
void hak_process_tick(void) {
  static __thread unsigned n_calls HAK_TLS_MODEL;
  static uint64_t last_ms;  // atomic
  if (HAK_LIKELY(++n_calls % TICK_CALLS != 0)) return;
  if (hak_thread_cache.heap != NULL) hak_heap_tick(&hak_thread_cache);
  uint64_t now = process.pool.os->now_ms();
  uint64_t last = hak_load_relaxed(&last_ms);
  if (now - last < TICK_MS || !hak_cas_relaxed(&last_ms, &last, now)) return;
  hak_process_decay();
  hak_background_start(&process);
}

// Threads

// Other destructors may run after this one, and libc frees some more after all of them. In the last round of
// destructors nobody would take a heap away again, and no thread knows which round it is: from here on this one goes
// without.
static void thread_ends(void *unused) {
  (void)unused;
  ended = true;
  if (HAK_CONFIG_HARDENED && hak_thread_cache.heap != NULL) hak_hardened_flush(&hak_thread_cache);
  hak_ace_cache_flush(&process.ace, &hak_thread_ace_cache);
  if (hak_thread_cache.heap != NULL) hak_heap_detach(&hak_thread_cache);
}

HAK_COLD bool hak_thread_attach(void) {
  struct hak_process *state = hak_process_get();
  if (ended) return false;
  if (!hak_heap_attach(&state->heaps, &hak_thread_cache)) return false;
  // May allocate, which works by now. Where it fails, the heap of this thread is not reused after its end.
  if (exit_key_made) (void)pthread_setspecific(exit_key, &hak_thread_cache);
  return true;
}

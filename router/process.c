#define _GNU_SOURCE  // dladdr1, dlinfo, environ, secure_getenv
#include "router/process.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/atomic.h"
#include "platform/lock.h"
#include "platform/os.h"
#include "platform/threads.h"
#include "router/background.h"
#include "router/fallback.h"
#include "router/hardened.h"

HAK_HIDDEN __thread struct hak_cache hak_thread_cache HAK_TLS_MODEL = HAK_CACHE_INIT;
HAK_HIDDEN __thread struct hak_ace_cache hak_thread_ace_cache HAK_TLS_MODEL;

// The calling thread may not have a heap any more, see thread_ends.
static __thread bool ended HAK_TLS_MODEL;

// The operating system of the process: the kernel, or what a test composes the router over.
#ifndef HAK_PROCESS_OS
#define HAK_PROCESS_OS hak_os_linux
#endif
const struct hak_os *HAK_PROCESS_OS(void);

// Slow calls of a thread per look at the clock, and milliseconds between two ticks of the process.
#define TICK_CALLS 64
#define TICK_MS 10

// Milliseconds between two trims of a process that holds more than a soft limit allows.
#define SOFT_TRIM_MS 100

static struct hak_process process;
static bool process_ready;     // atomic
static bool is_at_home;        // has_programs_libc; written before process_ready
static bool options_are_late;  // likewise: malloc came before libc had found the environment
static bool exit_key_made;
static pthread_key_t exit_key;

// Process

static const char *get_variable(const char *name) { return secure_getenv(name); }

// Both are in the thread-local memory of one library, so they lie equally far apart in every thread.
static struct hak_ace_cache *ace_cache_beside(struct hak_cache *cache) {
  uintptr_t own = (uintptr_t)&hak_thread_cache;
  uintptr_t own_ace = (uintptr_t)&hak_thread_ace_cache;
  // Linkers do not know how to relax a subtraction of thread-local offsets.
  HAK_HIDE(own);
  HAK_HIDE(own_ace);
  return (struct hak_ace_cache *)((uintptr_t)cache + (own_ace - own));
}

static void flush_ace_cache_beside(struct hak_cache *cache) {
  hak_ace_cache_flush(&process.ace, ace_cache_beside(cache));
}

// All locks are taken before a fork, in the order of their ranks, so that the child finds every structure whole.
#define ALL_LOCKS process.heaps.visit_lock, process.heaps.lock, process.huge.lock, process.pool.lock, hak_registry_lock

static void take_all_locks(void) HAK_ACQUIRES(ALL_LOCKS) {
  hak_heap_set_before_fork(&process.heaps, &hak_thread_cache);
  hak_ace_lock(&process.ace);
  hak_huge_lock(&process.huge);
  hak_pool_lock(&process.pool);
  hak_lock(&hak_registry_lock);
  hak_lock_all_held = true;
}

static void unlock_tiers(void) HAK_RELEASES(process.huge.lock, process.pool.lock, hak_registry_lock) {
  hak_unlock(&hak_registry_lock);
  hak_pool_unlock(&process.pool);
  hak_huge_unlock(&process.huge);
  hak_ace_unlock(&process.ace);
}

static void give_back_all_locks(void) HAK_RELEASES(ALL_LOCKS) {
  hak_lock_all_held = false;
  unlock_tiers();
  hak_heap_set_after_fork_in_parent(&process.heaps);
}

static void begin_child(void) HAK_RELEASES(ALL_LOCKS) {
  hak_heap_set_orphan_all(&process.heaps, &hak_thread_cache, flush_ace_cache_beside);
  hak_lock_all_held = false;
  unlock_tiers();
  hak_heap_set_after_fork_in_child(&process.heaps);
}

// Where there is but one thread, nobody else is at work on anything, and what that one is at work on, in malloc, which
// the fork in a signal handler has interrupted, it goes on with on both sides.
static bool forks_alone;

static void before_fork(void) HAK_LOCKS_UNCHECKED {
  forks_alone = is_at_home && hak_is_only_thread();
  if (!forks_alone) take_all_locks();
}

static void after_fork_in_parent(void) HAK_LOCKS_UNCHECKED {
  if (!forks_alone) give_back_all_locks();
}

static void after_fork_in_child(void) HAK_LOCKS_UNCHECKED {
  hak_heap_after_fork_in_child(&hak_thread_cache);
  if (!forks_alone) begin_child();
  hak_background_begin(&process);
}

static void thread_ends(void *thread);

// Tells the tiers about the options that can change at run time.
static void apply_options_locked(void) HAK_REQUIRES(process.pool.lock) {
  struct hak_retain *retain = &process.pool.retain;
  const struct hak_config *config = &process.config;
  uint64_t delay_ms = config->tiny_mem_diet ? 0 : config->purge_delay_ms;
  hak_store_relaxed(&retain->delay_ms, delay_ms);
  hak_store_relaxed(&retain->min_bytes, delay_ms == 0 ? 0 : HAK_RETAIN_MIN_BYTES);
  hak_store_relaxed(&process.pool.thp, config->thp);
  hak_store_relaxed(&retain->limit.soft, config->limit.soft);
  hak_store_relaxed(&retain->limit.max_bytes, config->limit.bytes == 0 ? HAK_LIMIT_NONE : config->limit.bytes);
}

// A thread that another libc than the program's starts would not be a whole one (has_programs_libc).
static void refuse_background_elsewhere(struct hak_config *config) {
  if (!is_at_home) config->background_purge = 0;
}

int hak_process_set(const char *name, const char *value) {
  struct hak_config changed = {.verbose = 0};
  int error = hak_config_parse(&changed, name, value);
  if (error != 0) return error;
  refuse_background_elsewhere(&changed);
  // The pool's lock, since all of them are known to a fork.
  hak_pool_lock(&process.pool);
  hak_config_copy(&process.config, &changed, name);
  apply_options_locked();
  hak_pool_unlock(&process.pool);
  // A program that idles from now on would not start it.
  hak_background_start(&process);
  return 0;
}

// A library that dlmopen has opened has another libc than the program, whose thread-specific keys use the same places
// in the same threads: a key of ours there would overwrite one of the program's, and no thread that the program has
// started would call its destructor. Nor would a thread that this libc starts be a whole one.
static bool has_programs_libc(void) {
  if (!HAK_CONFIG_DLOPEN) return true;
  Dl_info info;
  void *map = NULL;
  Lmid_t found = LM_ID_BASE;
  bool done = dladdr1(&process, &info, &map, RTLD_DL_LINKMAP) != 0 && dlinfo(map, RTLD_DI_LMID, &found) == 0;
  return !done || found == LM_ID_BASE;
}

// Returns whether it was this call that made it.
static bool make_process(void) {
  static struct hak_mutex lock = HAK_MUTEX_INIT;
  hak_lock(&lock);
  bool make = !process_ready;
  if (make) {
    options_are_late = environ == NULL;
    process.config = hak_config_read(get_variable);
    bool diet = process.config.tiny_mem_diet != 0;
    hak_pool_init(&process.pool, HAK_PROCESS_OS());
    hak_pool_lock(&process.pool);
    apply_options_locked();
    hak_pool_unlock(&process.pool);
    hak_heap_set_init(&process.heaps, &process.pool, process.config.tiny_refill_count_hot, diet);
    hak_ace_init(&process.ace, &process.pool, diet);
    hak_huge_init(&process.huge, &process.pool, diet);
    is_at_home = has_programs_libc();
    refuse_background_elsewhere(&process.config);
    hak_background_begin(&process);
    exit_key_made = is_at_home && pthread_key_create(&exit_key, thread_ends) == 0;
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

// IFUNC resolvers and the constructors of libraries that are linked with `-z initfirst` may call malloc that early.
static void take_late_options(void) {
  struct hak_config late = hak_config_read(get_variable);
  refuse_background_elsewhere(&late);
  hak_pool_lock(&process.pool);
  hak_config_take_late(&process.config, &late);
  apply_options_locked();
  hak_pool_unlock(&process.pool);
}

// For programs that fork, or start threads, before they allocate; and what may allocate waits until the program is up:
// looking for libc's malloc.
__attribute__((constructor)) static void program_is_up(void) {
  (void)hak_process_get();
  if (options_are_late) take_late_options();
  if (process.config.allow_malloc_fallback) hak_fallback_find();
}

bool hak_process_decay(void) {
  bool unfinished = hak_heap_set_tick(&process.heaps, &hak_thread_cache);
  hak_pool_tick(&process.pool);
  hak_ace_tick(&process.ace, hak_thread_cache.heap == NULL ? NULL : &hak_thread_ace_cache);
  hak_huge_tick(&process.huge);
  return unfinished;
}

void hak_process_trim(size_t pad) {
  if (HAK_CONFIG_HARDENED && hak_thread_cache.heap != NULL) hak_hardened_flush(&hak_thread_cache);
  if (hak_thread_cache.heap != NULL) (void)hak_heap_trim(&hak_thread_cache);
  (void)hak_heap_set_trim(&process.heaps, &hak_thread_cache);
  hak_ace_cache_flush(&process.ace, &hak_thread_ace_cache);
  (void)hak_ace_trim(&process.ace, pad);
  (void)hak_huge_trim(&process.huge, pad);
  (void)hak_pool_trim(&process.pool, pad);
}

// True once in so many milliseconds, for one of the threads that ask.
static bool is_due(uint64_t *last_ms, uint64_t now, uint64_t interval_ms) {
  uint64_t last = hak_load_relaxed(last_ms);
  return now - last >= interval_ms && hak_cas_relaxed(last_ms, &last, now);
}

// Where somebody was short of memory since this thread last looked, it gives up the cache that nobody else can reach.
static void help_others(void) {
  static __thread uint32_t n_seen HAK_TLS_MODEL;
  uint32_t n_pressed = hak_load_relaxed(&process.pool.retain.limit.n_pressed);
  if (HAK_LIKELY(n_pressed == n_seen)) return;
  n_seen = n_pressed;
  hak_ace_cache_flush(&process.ace, &hak_thread_ace_cache);
}

// What stays unused goes back also where its own tier is not asked any more.
void hak_process_tick(void) {
  static __thread unsigned n_calls HAK_TLS_MODEL;
  static uint64_t ticked_ms, trimmed_ms;  // atomic
  if (HAK_LIKELY(++n_calls % TICK_CALLS != 0)) return;
  if (hak_thread_cache.heap != NULL) hak_heap_tick(&hak_thread_cache);
  help_others();
  uint64_t now = process.pool.os->now_ms();
  if (!is_due(&ticked_ms, now, TICK_MS)) return;
  (void)hak_process_decay();
  if (hak_limit_is_exceeded(&process.pool.retain.limit) && is_due(&trimmed_ms, now, SOFT_TRIM_MS)) hak_process_trim(0);
  hak_background_ask();
}

// Threads

// The last round is left to those who take away what the code of all others needs, as ThreadSanitizer does.
#define LAST_ROUND (PTHREAD_DESTRUCTOR_ITERATIONS - 1)

// Other destructors run after this one, and again in the next round: so does this one, to take away again what heap
// they have come by. After its last call the thread goes without, if it had a heap before the first round: else its
// rounds are counted too late, and a visitor finds the heap (platform/life.h).
static void thread_ends(void *cache) {
  static __thread unsigned n_rounds HAK_TLS_MODEL;
  if (HAK_CONFIG_HARDENED && hak_thread_cache.heap != NULL) hak_hardened_flush(&hak_thread_cache);
  hak_ace_cache_flush(&process.ace, &hak_thread_ace_cache);
  if (hak_thread_cache.heap != NULL) hak_heap_detach(&hak_thread_cache);
  ended = ++n_rounds == LAST_ROUND || pthread_setspecific(exit_key, cache) != 0;
}

HAK_COLD bool hak_thread_attach(void) {
  struct hak_process *state = hak_process_get();
  // Nobody would take the heap away when the thread and its memory are gone.
  if (ended || !exit_key_made) return false;
  if (!hak_heap_attach(&state->heaps, &hak_thread_cache)) return false;
  // May allocate, which works by now.
  if (pthread_setspecific(exit_key, &hak_thread_cache) == 0) return true;
  hak_heap_detach(&hak_thread_cache);
  ended = true;
  return false;
}

// A thread that frees little needs no heap. Nor does one that has ended, in which libc frees blocks of its own after
// all destructors; but it cannot be told from others if it never allocated. libc frees a block for each stack that it
// gives back, which are seldom so many.
#define FREES_WITHOUT_HEAP 64

HAK_COLD void hak_thread_frees_without_heap(void) {
  static __thread unsigned n_frees HAK_TLS_MODEL;
  if (++n_frees >= FREES_WITHOUT_HEAP) (void)hak_thread_attach();
}

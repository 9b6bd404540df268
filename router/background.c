#define _GNU_SOURCE  // pthread_sigmask
#include "router/background.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "platform/threads.h"

// Below this a process is too small for a thread of its own.
#define MIN_HELD_BYTES ((size_t)16 * 1024 * 1024)

// A program that takes or gives back so many slabs may idle from then on.
#define MANY_SLABS (MIN_HELD_BYTES / 2 / HAK_SLAB_BYTES)

// The longest sleep, after which the thread looks whether it is still wanted, and for how long it is to rest.
#define MAX_SLEEP_MS 500

static bool running, asked;  // atomic
static size_t n_seen;        // atomic; slabs in use at the last look that came to anything

// The child of a vfork shares all memory with its parent, but a thread that it starts dies with it.
static pid_t own_process;

static size_t held_bytes(struct hak_process *process) {
  size_t superslab_bytes = hak_load_relaxed(&process->pool.n_superslabs) * HAK_SUPERSLAB_BYTES;
  // Those in use as well: malloc, which starts the thread, has just taken what was cached.
  size_t huge_bytes = hak_load_relaxed(&process->huge.live_bytes) + hak_load_relaxed(&process->huge.cached_bytes);
  return superslab_bytes + huge_bytes;
}

static bool is_wanted(struct hak_process *process) {
  return hak_load_relaxed(&process->config.background_purge) != 0 && held_bytes(process) >= MIN_HELD_BYTES;
}

static bool begin_running(void) {
  bool expected = false;
  // Acquire: pairs with end_running.
  return hak_cas_acquire(&running, &expected, true);
}

static void end_running(void) { hak_store_release(&running, false); }

// Whoever acquires a SuperSlab after this thread has looked at them, and before it says that it ends, starts none. The
// lock, under which SuperSlabs are acquired, lets one of the two see the other.
static bool goes_on(struct hak_process *process) {
  hak_pool_lock(&process->pool);
  bool wanted = is_wanted(process);
  hak_pool_unlock(&process->pool);
  return wanted && begin_running();
}

// Works until it is not wanted any more, or is the last thread of the program. Whether it is that.
static bool serve(struct hak_process *process) {
  bool unfinished = false;
  uint64_t rested_ms = 0;
  while (is_wanted(process)) {
    if (hak_is_last_thread()) return true;
    uint64_t rest_ms = unfinished ? HAK_DECAY_REST_MS : hak_retain_look_interval_ms(&process->pool.retain);
    if (rested_ms < rest_ms) {
      uint64_t sleep_ms = hak_min(rest_ms - rested_ms, MAX_SLEEP_MS);
      hak_sleep_ns(sleep_ms * 1000000);
      rested_ms += sleep_ms;
    } else {
      unfinished = hak_process_decay();
      rested_ms = 0;
    }
  }
  return false;
}

// Allocates nothing and frees nothing, so that it never has a heap of its own. A program whose threads have all ended,
// the main thread by pthread_exit, ends with this one; where that cannot be seen it ends at once, and none follows.
static void *run(void *argument) {
  struct hak_process *process = argument;
  do {
    if (serve(process)) return NULL;
    end_running();
  } while (goes_on(process));
  return NULL;
}

// The thread serves no signals: they are the program's. Its stack has the usual size, of which it touches a page or
// two: a smaller one would be refused in programs with much thread-local data, which libc puts there too.
static bool start_thread(struct hak_process *process) {
  sigset_t all, before;
  pthread_attr_t attributes;
  pthread_t thread;
  sigfillset(&all);
  if (pthread_attr_init(&attributes) != 0) return false;
  (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = pthread_create(&thread, &attributes, run, process) == 0;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  (void)pthread_attr_destroy(&attributes);
  return started;
}

void hak_background_start(struct hak_process *process) {
  if (hak_load_relaxed(&running) || !is_wanted(process) || getpid() != own_process) return;
  if (!begin_running()) return;
  int saved_errno = errno;
  if (!start_thread(process)) end_running();
  errno = saved_errno;
}

void hak_background_ask(void) { hak_store_relaxed(&asked, true); }

void hak_background_look(struct hak_process *process) {
  size_t n_slabs = hak_load_relaxed(&process->pool.n_slabs_used);
  size_t n_more = n_slabs - hak_load_relaxed(&n_seen);  // or fewer
  if (!hak_load_relaxed(&asked) && n_more + MANY_SLABS < 2 * MANY_SLABS) return;
  hak_store_relaxed(&asked, false);
  hak_store_relaxed(&n_seen, n_slabs);
  hak_background_start(process);
}

void hak_background_begin(const struct hak_process *process) {
  own_process = getpid();
  hak_store_relaxed(&n_seen, hak_load_relaxed(&process->pool.n_slabs_used));
  hak_store_relaxed(&asked, false);
  hak_store_relaxed(&running, false);
}

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

// The longest sleep, after which the thread looks whether it is still wanted, and for how long it is to rest.
#define MAX_SLEEP_MS 500

HAK_HIDDEN bool hak_background_asked;

static bool running;  // atomic

// The child of a vfork shares all memory with its parent, but a thread that it starts dies with it.
static pid_t own_process;

static size_t held_bytes(struct hak_process *process) {
  size_t bytes = hak_load_relaxed(&process->pool.n_superslabs) * HAK_SUPERSLAB_BYTES;
  hak_huge_lock(&process->huge);
  bytes += process->huge.cached_bytes;
  hak_huge_unlock(&process->huge);
  return bytes;
}

static bool is_wanted(const struct hak_process *process) {
  return hak_load_relaxed(&process->config.background_purge) != 0;
}

// Allocates nothing and frees nothing, so that it never has a heap of its own. A program whose threads have all ended,
// the main thread by pthread_exit, ends with this one; where that cannot be seen it ends at once, and none follows.
static void *run(void *argument) {
  struct hak_process *process = argument;
  bool unfinished = false;
  uint64_t rested_ms = 0;
  bool is_last = false;
  while (is_wanted(process) && held_bytes(process) >= MIN_HELD_BYTES && !(is_last = hak_is_last_thread())) {
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
  if (!is_last) hak_store_release(&running, false);
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

void hak_background_ask(struct hak_process *process) {
  if (is_wanted(process) && !hak_load_relaxed(&running)) hak_store_relaxed(&hak_background_asked, true);
}

void hak_background_start(struct hak_process *process) {
  bool expected = false;
  if (!is_wanted(process) || hak_load_relaxed(&running)) return;
  if (held_bytes(process) < MIN_HELD_BYTES || getpid() != own_process) return;
  // Acquire: pairs with the end of the thread before.
  if (!hak_cas_acquire(&running, &expected, true)) return;
  int saved_errno = errno;
  if (!start_thread(process)) hak_store_release(&running, false);
  errno = saved_errno;
}

void hak_background_begin(void) {
  own_process = getpid();
  hak_store_relaxed(&running, false);
}

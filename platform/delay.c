#define _GNU_SOURCE  // secure_getenv
#include "platform/delay.h"

#if HAK_CONFIG_CHECKED

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "platform/threads.h"

// One synchronisation point in so many delays: often enough that every window is met, and seldom enough that the
// threads get on.
#define POINTS_PER_DELAY 64
// One delay in so many sleeps for up to that long, the others let somebody else run.
#define DELAYS_PER_SLEEP 4
#define SLEEP_NS_MAX 100000

static uint64_t process_seed;  // atomic
static uint64_t n_delays;      // atomic
static uint64_t n_threads;     // atomic; that have drawn since the seed was set
static unsigned generation;    // atomic; of the seed: 0 before there is one

struct generator {
  unsigned generation;
  uint64_t state;
};

static __thread struct generator generator HAK_TLS_MODEL;

// SplitMix64 (Steele, Lea and Flood, 2014).
static uint64_t draw(struct generator *from) {
  from->state += 0x9e3779b97f4a7c15u;
  uint64_t bits = from->state;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  return bits ^ bits >> 31;
}

void hak_delay_set_seed(uint64_t seed) {
  hak_store_relaxed(&process_seed, seed);
  hak_store_relaxed(&n_threads, 0);
  hak_add_relaxed(&generation, 1);
}

static unsigned find_generation(void) {
  unsigned found = hak_load_relaxed(&generation);
  if (HAK_LIKELY(found != 0)) return found;
  // Several threads may get here at once, and do the same.
  const char *number = secure_getenv("HAKMEM_DELAY_SEED");
  hak_delay_set_seed(number == NULL ? 0 : strtoull(number, NULL, 10));
  return hak_load_relaxed(&generation);
}

uint64_t hak_delay_seed(void) {
  (void)find_generation();
  return hak_load_relaxed(&process_seed);
}

uint64_t hak_delay_count(void) { return hak_load_relaxed(&n_delays); }

static HAK_COLD void let_others_run(uint64_t bits) {
  int saved_errno = errno;
  hak_add_relaxed(&n_delays, 1);
  if (bits % DELAYS_PER_SLEEP == 0) {
    hak_sleep_ns(bits / DELAYS_PER_SLEEP % SLEEP_NS_MAX);
  } else {
    (void)sched_yield();
  }
  errno = saved_errno;
}

void hak_delay(void) {
  uint64_t seed = hak_delay_seed();
  if (seed == 0) return;
  unsigned now = hak_load_relaxed(&generation);
  if (generator.generation != now) {
    generator.generation = now;
    generator.state = seed;
    generator.state = draw(&generator) + hak_add_relaxed(&n_threads, 1);
  }
  uint64_t bits = draw(&generator);
  if (bits % POINTS_PER_DELAY == 0) let_others_run(bits / POINTS_PER_DELAY);
}

#endif

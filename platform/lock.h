// The locks of the allocator: mutexes that a fork may find in any state but must leave usable.
//
// The thread that forks takes all of them before, and gives them back after, in parent and child. In between, other
// libraries' fork handlers run, in an order that nobody controls, and may allocate: for this one thread the locks,
// which it holds, are then no obstacle.
#ifndef HAKMEM_PLATFORM_LOCK_H_
#define HAKMEM_PLATFORM_LOCK_H_

#include <pthread.h>
#include <stdbool.h>

#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

// Whether the calling thread holds all locks, for a fork.
extern __thread bool hak_lock_all_held HAK_TLS_MODEL HAK_HIDDEN;

static inline void hak_lock(pthread_mutex_t *lock) {
  if (HAK_LIKELY(!hak_lock_all_held)) pthread_mutex_lock(lock);
}

static inline void hak_unlock(pthread_mutex_t *lock) {
  if (HAK_LIKELY(!hak_lock_all_held)) pthread_mutex_unlock(lock);
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_LOCK_H_

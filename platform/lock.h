// The locks of the allocator: mutexes that a fork may find in any state but must leave usable.
//
// The thread that forks takes all of them before, and gives them back after, in parent and child. In between, other
// libraries' fork handlers run, in an order that nobody controls, and may allocate: for this one thread the locks,
// which it holds, are then no obstacle.
#ifndef HAKMEM_PLATFORM_LOCK_H_
#define HAKMEM_PLATFORM_LOCK_H_

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/atomic.h"
#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

// Whether the calling thread holds all locks, for a fork.
extern __thread bool hak_lock_all_held HAK_TLS_MODEL HAK_HIDDEN;

struct HAK_LOCK_TYPE hak_mutex {
  pthread_mutex_t mutex;
};

#define HAK_MUTEX_INIT \
  { PTHREAD_MUTEX_INITIALIZER }

static inline void hak_mutex_init(struct hak_mutex *lock) { pthread_mutex_init(&lock->mutex, NULL); }
static inline void hak_mutex_destroy(struct hak_mutex *lock) { pthread_mutex_destroy(&lock->mutex); }

// Unchecked: libc's mutex is not annotated.
static inline void hak_lock(struct hak_mutex *lock) HAK_ACQUIRES(lock) HAK_LOCKS_UNCHECKED {
  hak_sync_point();
  if (HAK_LIKELY(!hak_lock_all_held)) pthread_mutex_lock(&lock->mutex);
}

static inline void hak_unlock(struct hak_mutex *lock) HAK_RELEASES(lock) HAK_LOCKS_UNCHECKED {
  if (HAK_LIKELY(!hak_lock_all_held)) pthread_mutex_unlock(&lock->mutex);
  hak_sync_point();
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_LOCK_H_

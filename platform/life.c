#define _GNU_SOURCE  // pthread_mutexattr_setrobust
#include "platform/life.h"

#include <errno.h>

void hak_life_begin(struct hak_life *life) {
  pthread_mutexattr_t attributes;
  (void)pthread_mutexattr_init(&attributes);
  (void)pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  (void)pthread_mutex_init(&life->mutex, &attributes);
  (void)pthread_mutexattr_destroy(&attributes);
  // Never waits for anybody, so that it has no rank among the locks.
  (void)pthread_mutex_trylock(&life->mutex);
}

void hak_life_end(struct hak_life *life) { (void)pthread_mutex_unlock(&life->mutex); }

bool hak_life_is_lost(struct hak_life *life) {
  int error = pthread_mutex_trylock(&life->mutex);
  if (error == EBUSY) return false;
  if (error == EOWNERDEAD) (void)pthread_mutex_consistent(&life->mutex);
  if (error == 0 || error == EOWNERDEAD) (void)pthread_mutex_unlock(&life->mutex);
  return error == EOWNERDEAD;
}

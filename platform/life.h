// Whether a thread still exists, also one that has ended without a word: by the exit system call alone, or after its
// first allocation in the last round of its destructors.
//
// A life is a robust mutex that its thread holds (POSIX, pthread_mutexattr_setrobust): when the thread is gone the
// kernel marks it, before its stack and its thread-local memory can be anything else.
#ifndef HAKMEM_PLATFORM_LIFE_H_
#define HAKMEM_PLATFORM_LIFE_H_

#include <pthread.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

// Of any content before it begins. Must stay mapped until the thread has ended it, or has ended.
struct hak_life {
  pthread_mutex_t mutex;
};

// The calling thread's. Begins anew what nobody looks at meanwhile, in the child of a fork also its own.
void hak_life_begin(struct hak_life *life);
void hak_life_end(struct hak_life *life);

// Whether the thread that began it has ended, and not the life: true to one caller, once. In the child of a fork:
// whether it had when the process forked. Where a thread's end cannot be told, false.
bool hak_life_is_lost(struct hak_life *life);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_LIFE_H_

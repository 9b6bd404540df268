// Whether a thread still exists, also one that has ended without a word: by the exit system call alone, or after its
// first allocation in the last round of its destructors.
//
// The kernel is asked for the thread's number. A robust mutex would tell as well, and exactly; but libc links those of
// a thread into one list, where hakmem would meet mutexes that the program has unmapped or freed while it held them,
// and which threads that libc has not started do not have.
#ifndef HAKMEM_PLATFORM_LIFE_H_
#define HAKMEM_PLATFORM_LIFE_H_

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

// A thread, as the kernel numbers it.
struct hak_life {
  pid_t process;
  pid_t thread;
};

// That of the calling thread. Never allocates. Cost: two system calls.
struct hak_life hak_life_own(void);

// Whether the thread, of this process, has ended. False where that cannot be told: in the child of a fork, of the
// parent's threads; of a main thread that other threads have outlived; while another thread has got the number. Never
// allocates, keeps errno. Cost: two system calls.
bool hak_life_is_over(struct hak_life life);

// Whether `bytes` bytes at `p`, which is not NULL, two pages of memory at most, can be read: the thread-local memory of
// a thread that may have ended. Never allocates, keeps errno. Cost: two system calls. (The way is that
// of Abseil's AddressIsReadable.)
bool hak_is_readable(const void *p, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_LIFE_H_

// What the kernel and libc say of the process's threads.
#ifndef HAKMEM_PLATFORM_THREADS_H_
#define HAKMEM_PLATFORM_THREADS_H_

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Whether the main thread has ended, and no other thread is left than the calling one; true also where /proc does not
// say.
// Never allocates, changes errno. Cost: three system calls.
bool hak_is_last_thread(void);

// Whether the process has no other thread than the calling one, as far as libc knows: false where it does not say.
bool hak_is_only_thread(void);

// Sleeps for about so long, by system call: libc's functions are cancellation points. Keeps errno.
void hak_sleep_ns(uint64_t ns);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_THREADS_H_

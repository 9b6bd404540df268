// What the kernel says of the process's threads.
#ifndef HAKMEM_PLATFORM_THREADS_H_
#define HAKMEM_PLATFORM_THREADS_H_

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

// Whether the main thread has ended, and no other thread is left than the calling one. False where /proc does not say.
// Never allocates, changes errno. Cost: three system calls.
bool hak_is_last_thread(void);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_THREADS_H_

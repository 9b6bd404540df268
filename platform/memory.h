// How much memory there is for this process.
#ifndef HAKMEM_PLATFORM_MEMORY_H_
#define HAKMEM_PLATFORM_MEMORY_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// The machine's memory, or the lowest limit of the process's own control group and those above it (memory.max of
// version 2, memory.limit_in_bytes of version 1) if that is less; in bytes. Files are looked for under `root`, which is
// "" but for tests; those that are missing or say nothing are no limit. Never fails, never allocates, keeps errno. Any
// thread. Cost: some twenty system calls.
size_t hak_memory_bytes(const char *root);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_MEMORY_H_

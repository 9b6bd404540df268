// What every program of this folder does: say on stdout what line must appear on stderr, then do what it is named
// after. The allocator must stop it there with SIGABRT; reaching the end is a failure. Those in guarded/ touch memory
// that is out of their reach: they say "ready" and must get SIGSEGV.
#ifndef HAKMEM_TESTING_MISUSE_MISUSE_H_
#define HAKMEM_TESTING_MISUSE_MISUSE_H_

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FOREIGN                           \
  "pointer was not allocated by hakmem; " \
  "if libc's malloc did, for a library opened with RTLD_DEEPBIND, set HAKMEM_FOREIGN_FREE=libc"
#define FOREIGN_IN_SLAB "pointer was not allocated by hakmem"
#define DOUBLE_FREE "double free"
#define UNALIGNED "pointer is not aligned to 16 bytes"
#define NOT_START "pointer is not the start of a block"
#define CORRUPTED "free list is corrupted"
#define OVERFLOWED "block was overflowed"

static inline void expect(const char *function, const void *p, const char *reason) {
  printf("[HAKMEM] FATAL: %s(0x%lx): %s\n", function, (unsigned long)(uintptr_t)p, reason);
  fflush(stdout);
}

static inline void ready(void) {
  printf("ready\n");
  fflush(stdout);
}

// A block of `size` bytes that has been written to.
static inline char *block_of(size_t size) {
  char *p = malloc(size);
  if (p == NULL) exit(2);
  for (size_t i = 0; i < size; i += 512) p[i] = 1;
  return p;
}

// Runs `f` on `p` in a thread of its own, to its end.
static inline void run_in_thread(void *(*f)(void *), void *p) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, f, p) != 0) exit(2);
  pthread_join(thread, NULL);
}

// `p` as a pointer of which the compiler knows nothing, so that it neither warns of the misuse nor leaves it out.
static inline void *opaque(void *p) {
  __asm__ volatile("" : "+r"(p) : : "memory");
  return p;
}

#endif  // HAKMEM_TESTING_MISUSE_MISUSE_H_

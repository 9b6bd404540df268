// What programs do all day, in every tier and in several threads, with all content checked. Prints "ok".
//
// Usage: everyday [mlockall | descriptors]
//   mlockall      locks all memory, present and future, first; exit status 77 if this user may not
//   descriptors   is started with stdin, stdout and stderr closed, and fails if anybody has opened a file meanwhile
#define _DEFAULT_SOURCE  // madvise, MAP_ANONYMOUS
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const char *hak_owner(const void *p) __attribute__((weak));

enum { THREADS = 3, ROUNDS = 3, CANNOT = 77 };

static const size_t sizes[] = {1, 16, 100, 1000, 1025, 5000, 32768, 40000, 300000, 1500000, 2500000, 5000000};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static int holds(const char *p, size_t size, char value) {
  return p[0] == value && (size == 1 || memcmp(p, p + 1, size - 1) == 0);
}

static const char *round_of(char value) {
  char *block[SIZES];
  for (size_t i = 0; i < SIZES; ++i) {
    block[i] = calloc(1, sizes[i]);
    if (block[i] == NULL || hak_owner(block[i]) == NULL) return "calloc";
    if (!holds(block[i], sizes[i], 0)) return "calloc left something in a block";
    memset(block[i], value, sizes[i]);
  }
  for (size_t i = 0; i < SIZES; ++i) {
    size_t size = sizes[SIZES - 1 - i];
    block[i] = realloc(block[i], size);
    if (block[i] == NULL) return "realloc";
    if (!holds(block[i], size < sizes[i] ? size : sizes[i], value)) return "realloc lost content";
    memset(block[i], value, size);
  }
  for (size_t i = 0; i < SIZES; ++i) {
    if (!holds(block[i], sizes[SIZES - 1 - i], value)) return "a block was overwritten";
    free(block[i]);
  }
  malloc_trim(0);
  return NULL;
}

// Whether from now on all memory is locked. A limit may allow for what is mapped now, but not for more.
static int lock_all(void) {
  const size_t bytes = (size_t)128 << 20;
  if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0) return 0;
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p != MAP_FAILED && madvise(p, bytes, MADV_DONTNEED) != 0 && munmap(p, bytes) == 0;
}

static void *work(void *number) {
  // Keeps memory around it from being unmapped, so that malloc_trim has to ask for pages that are zero again.
  char *anchor = malloc(300000);
  if (anchor == NULL) return "malloc";
  for (int i = 0; i < ROUNDS; ++i) {
    const char *wrong = round_of((char)((intptr_t)number * ROUNDS + i + 1));
    if (wrong != NULL) return (void *)(uintptr_t)wrong;
  }
  free(anchor);
  return NULL;
}

int main(int argc, char **argv) {
  const char *mode = argc == 2 ? argv[1] : "";
  if (hak_owner == NULL) return 2;
  if (strcmp(mode, "mlockall") == 0 && !lock_all()) return CANNOT;

  pthread_t threads[THREADS];
  for (intptr_t i = 0; i < THREADS; ++i) {
    if (pthread_create(&threads[i], NULL, work, (void *)i) != 0) return 2;
  }
  const char *wrong = NULL;
  for (size_t i = 0; i < THREADS; ++i) {
    void *result = NULL;
    pthread_join(threads[i], &result);
    if (result != NULL) wrong = result;
  }
  if (wrong != NULL) {
    puts(wrong);
    return 1;
  }
  if (strcmp(mode, "descriptors") == 0) return open("/dev/null", O_RDONLY) == 0 ? 0 : 1;
  puts("ok");
  return 0;
}

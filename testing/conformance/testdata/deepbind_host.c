// Opens the library argv[1] with RTLD_DEEPBIND and hands a block that it has from libc to the function argv[2]. Prints
// the block's address first, and "ok" if the program lives to see that all went well.
#define _GNU_SOURCE  // RTLD_DEEPBIND
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 1000 };

const char *hak_owner(const void *p) __attribute__((weak));

static int holds(const char *p, size_t size) { return p[0] == 'x' && memcmp(p, p + 1, size - 1) == 0; }

int main(int argc, char **argv) {
  if (argc != 3 || hak_owner == NULL) return 2;
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_DEEPBIND);
  void *(*allocate)(size_t) = library == NULL ? NULL : (void *(*)(size_t))dlsym(library, "deepbound_malloc");
  char *p = allocate == NULL ? NULL : allocate(SIZE);
  if (p == NULL || hak_owner(p) != NULL) return 2;
  printf("0x%lx\n", (unsigned long)(uintptr_t)p);
  fflush(stdout);

  if (strcmp(argv[2], "free") == 0) {
    free(p);
  } else if (strcmp(argv[2], "realloc") == 0) {
    p = realloc(p, 100 * SIZE);
    if (p == NULL || !holds(p, SIZE)) return 1;
    p = realloc(p, 10);
    if (p == NULL || !holds(p, 10) || realloc(p, 0) != NULL) return 1;
  } else if (strcmp(argv[2], "malloc_usable_size") == 0) {
    size_t usable = malloc_usable_size(p);
    if (usable < SIZE || usable > 2 * SIZE) return 1;
  } else if (strcmp(argv[2], "hakmem") == 0) {
    // The other misuse is recognised all the same.
    char *huge = malloc(8 << 20);
    printf("0x%lx\n", (unsigned long)(uintptr_t)(huge + (4 << 20)));
    fflush(stdout);
    free(huge + (4 << 20));
  } else {
    return 2;
  }
  puts("ok");
  return 0;
}

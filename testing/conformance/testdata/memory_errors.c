// memory_errors WHAT SIZE: does with a block of SIZE bytes what memcheck is there for.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef LINKED
#include "router/hakmem.h"
#define malloc hak_malloc
#define calloc hak_calloc
#define realloc hak_realloc
#define free hak_free
#endif

static volatile char sink;

// Blocks of many sizes come and go, and nothing is wrong with them.
static void work(void) {
  enum { N = 200 };
  static char *blocks[N];
  for (size_t i = 0; i < 2000; ++i) {
    size_t size = (i * 7919) % 60000 + (i % 100 == 0 ? 100000 : 0) + (i % 500 == 0 ? 3000000 : 0);
    char **block = &blocks[(i * 31) % N];
    switch (i % 4) {
      case 0:
        *block = realloc(*block, size + 1);
        (*block)[size] = 1;
        break;
      case 1:
        free(*block);
        *block = calloc(1, size + 1);
        if ((*block)[size] != 0) abort();
        break;
      default:
        free(*block);
        *block = malloc(size);
        memset(*block, 1, size);
    }
  }
  for (size_t i = 0; i < N; ++i) {
    free(blocks[i]);
    blocks[i] = NULL;
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const char *what = argv[1];
  size_t size = strtoul(argv[2], NULL, 10);
  // Of ACE and Huge, the first in its mapping has an address that the allocator keeps.
  char *first = malloc(size);
  char *block = malloc(size);
  memset(block, 1, size);
  if (strcmp(what, "nothing") == 0) {
    work();
    free(block);
  } else if (strcmp(what, "use-after-free") == 0) {
    free(block);
    sink = block[size / 2];
  } else if (strcmp(what, "overflow") == 0) {
    block[size] = 1;
    free(block);
  } else if (strcmp(what, "double-free") == 0) {
    char *other = malloc(size);
    free(block);
    free(other);
    free(block);
  } else if (strcmp(what, "undefined") == 0) {
    free(block);
    char *fresh = malloc(size);
    if (fresh[size - 1] == 'x') puts("x");
    free(fresh);
  } else if (strcmp(what, "leak") == 0) {
    // Nothing is left that would point to it.
    block = NULL;
    __asm__ volatile("" : "+r"(block) : : "memory");
    work();
  } else {
    return 2;
  }
  free(first);
  return 0;
}

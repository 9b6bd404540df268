// With HAKMEM_ALLOW_MALLOC_FALLBACK=1: allocates until libc has no memory either. Blocks of both owners must go back to
// where they came from. Prints "ok" if there were some of both and all could be used.
#include <malloc.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

const char *hak_owner(const void *p) __attribute__((weak));

enum { BLOCK_BYTES = 5000, BLOCKS_MAX = 100000 };

static char *blocks[BLOCKS_MAX];

static int holds(const char *p, char value) { return p[0] == value && memcmp(p, p + 1, BLOCK_BYTES - 1) == 0; }

int main(void) {
  if (hak_owner == NULL) return 2;
  printf(" ");  // stdout has its buffer before memory runs out
  rlim_t space = (rlim_t)256 << 20;
  if (setrlimit(RLIMIT_AS, &(struct rlimit){space, space}) != 0) return 2;

  size_t n_blocks = 0, n_libc = 0;
  char *last_of_libc = NULL;
  while (n_blocks < BLOCKS_MAX) {
    char *p = malloc(BLOCK_BYTES);
    if (p == NULL) break;
    memset(p, (char)n_blocks, BLOCK_BYTES);
    blocks[n_blocks] = p;
    if (hak_owner(p) == NULL) {
      n_libc++;
      last_of_libc = p;
      if (malloc_usable_size(p) < BLOCK_BYTES) return 1;
    }
    n_blocks++;
  }
  if (n_blocks == BLOCKS_MAX || n_libc == 0 || n_libc == n_blocks) {
    printf("%zu blocks, %zu of them from libc\n", n_blocks, n_libc);
    return 1;
  }
  for (size_t i = 0; i < n_blocks; ++i) {
    if (!holds(blocks[i], (char)i)) {
      printf("block %zu was overwritten\n", i);
      return 1;
    }
    if (blocks[i] == last_of_libc) {
      char *smaller = realloc(blocks[i], 100);
      if (smaller == NULL || smaller[99] != (char)i) {
        puts("realloc of a block of libc");
        return 1;
      }
      blocks[i] = smaller;
    }
    free(blocks[i]);
  }
  puts("ok");
  return 0;
}

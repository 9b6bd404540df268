// The Tiny tier alone, with a heap of this program's own.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tiny/tiny.h"

enum { N_BLOCKS = 10000 };

static struct hak_pool pool;
static struct hak_heap_set heaps;
static unsigned char *blocks[N_BLOCKS];

static size_t size_of(size_t i) { return i % (HAK_TINY_SIZE_MAX + 1); }

int main(void) {
  hak_pool_init(&pool, hak_os_linux());
  hak_heap_set_init(&heaps, &pool, HAK_REFILL_COUNT_DEFAULT, false);
  struct hak_cache cache = HAK_CACHE_INIT;
  if (!hak_heap_attach(&heaps, &cache)) {
    fputs("no memory for a heap\n", stderr);
    return 1;
  }
  for (size_t i = 0; i < N_BLOCKS; i++) {
    blocks[i] = hak_tiny_malloc(&cache, size_of(i));
    if (blocks[i] == NULL || (uintptr_t)blocks[i] % 16 != 0) {
      fprintf(stderr, "block %zu is %p\n", i, (void *)blocks[i]);
      return 1;
    }
    memset(blocks[i], (int)(i % 251), size_of(i));
  }
  for (size_t i = 0; i < N_BLOCKS; i++) {
    for (size_t at = 0; at < size_of(i); at++) {
      if (blocks[i][at] != i % 251) {
        fprintf(stderr, "block %zu was overwritten at byte %zu\n", i, at);
        return 1;
      }
    }
    hak_tiny_free(&cache, blocks[i]);
  }
  hak_heap_detach(&cache);
  return 0;
}

#include <malloc.h>
#include <string.h>
#include "testing/misuse/misuse.h"

int main(void) {
  // Neighbours in use keep the block's memory. The trim ends the delay before a freed block can be used again.
  char *blocks[16];
  for (int i = 0; i < 16; ++i) blocks[i] = block_of(3 * 1024);
  char *p = blocks[8];
  expect("malloc", p, CORRUPTED);
  free(p);
  malloc_trim(0);
  memset(opaque(p), 'A', 8);
  for (int i = 0; i < 16; ++i) (void)block_of(3 * 1024);
  return 0;
}

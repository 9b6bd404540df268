#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(64);
  char *start = (char *)((uintptr_t)p >> 16 << 16);
  expect("free", start, FOREIGN_IN_SLAB);
  free(opaque(start));
  return 0;
}

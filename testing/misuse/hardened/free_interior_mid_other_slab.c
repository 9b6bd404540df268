#include "testing/misuse/misuse.h"

int main(void) {
  // A run of 1 MiB in slabs of 64 KiB.
  char *p = NULL;
  do p = block_of(30 * 1024);
  while (((uintptr_t)p ^ ((uintptr_t)p + 29 * 1024)) >> 16 == 0);
  expect("free", p + 29 * 1024, NOT_START);
  free(opaque(p + 29 * 1024));
  return 0;
}

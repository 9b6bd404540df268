#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(64);
  expect("free", p + 1, UNALIGNED);
  free(opaque(p + 1));
  return 0;
}

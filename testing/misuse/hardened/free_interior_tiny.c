#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(64);
  expect("free", p + 16, NOT_START);
  free(opaque(p + 16));
  return 0;
}

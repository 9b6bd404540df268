#include "testing/misuse/misuse.h"

int main(void) {
  // A size that fills its class to the last byte: no canary between.
  char *p = opaque(block_of(56));
  expect("free", p, OVERFLOWED);
  for (int i = 56; i < 64; ++i) p[i] = 'A';
  free(p);
  return 0;
}

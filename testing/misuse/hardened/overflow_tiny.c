#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(block_of(50));
  expect("free", p, OVERFLOWED);
  p[50] = 0;
  free(p);
  return 0;
}

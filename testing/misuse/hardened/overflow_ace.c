#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(block_of(100 * 1000));
  expect("free", p, OVERFLOWED);
  p[100 * 1000] = 0;
  free(p);
  return 0;
}

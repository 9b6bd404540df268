#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(block_of(5 * 1024));
  expect("free", p, OVERFLOWED);
  p[5 * 1024] = 0;
  free(p);
  return 0;
}

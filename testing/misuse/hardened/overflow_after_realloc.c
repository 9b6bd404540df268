#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(realloc(block_of(100), 97));
  expect("free", p, OVERFLOWED);
  p[97] = 0;
  free(p);
  return 0;
}

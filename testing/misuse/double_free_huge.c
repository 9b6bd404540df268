#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(4 * 1024 * 1024);
  expect("free", p, DOUBLE_FREE);
  free(p);
  free(opaque(p));
  return 0;
}

#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(64);
  expect("realloc", p, DOUBLE_FREE);
  free(p);
  p = realloc(opaque(p), 100);
  return 0;
}

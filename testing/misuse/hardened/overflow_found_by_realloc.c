#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(block_of(100));
  expect("realloc", p, OVERFLOWED);
  p[100] = 0;
  p = realloc(p, 1000);
  return 0;
}

#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(5 * 1024);
  expect("realloc", p + 64, NOT_START);
  p = realloc(opaque(p + 64), 100);
  return 0;
}

#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(4 * 1024 * 1024);
  expect("realloc", p + 32, NOT_START);
  p = realloc(opaque(p + 32), 0);
  return p == NULL;
}

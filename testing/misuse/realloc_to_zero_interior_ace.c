#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(100 * 1024);
  expect("realloc", p + 65536, NOT_START);
  p = realloc(opaque(p + 65536), 0);
  return p == NULL;
}

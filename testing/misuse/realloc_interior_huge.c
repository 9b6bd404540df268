#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(4 * 1024 * 1024);
  expect("realloc", p + 65536, NOT_START);
  p = realloc(opaque(p + 65536), 128);
  return p == NULL;
}

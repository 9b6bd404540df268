#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(100 * 1024);
  expect("free", p + 4096, NOT_START);
  free(opaque(p + 4096));
  return 0;
}

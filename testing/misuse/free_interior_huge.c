#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(4 * 1024 * 1024);
  expect("free", p + 65536, NOT_START);
  free(opaque(p + 65536));
  return 0;
}

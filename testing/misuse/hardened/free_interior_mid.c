#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(5 * 1024);
  expect("free", p + 1024, NOT_START);
  free(opaque(p + 1024));
  return 0;
}

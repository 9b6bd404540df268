#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(realloc(block_of(8 * 1024 * 1024), 8 * 1024 * 1024 - 4096));
  ready();
  p[8 * 1024 * 1024 - 4096] = 1;
  return 0;
}

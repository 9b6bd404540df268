#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(realloc(block_of(4 * 1024 * 1024), 8 * 1024 * 1024));
  ready();
  p[8 * 1024 * 1024] = 1;
  return 0;
}

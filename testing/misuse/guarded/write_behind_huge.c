#include "testing/misuse/misuse.h"

int main(void) {
  char *p = opaque(block_of(4 * 1024 * 1024));
  ready();
  p[4 * 1024 * 1024] = 1;
  return 0;
}

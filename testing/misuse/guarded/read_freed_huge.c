#include "testing/misuse/misuse.h"

int main(void) {
  volatile char *p = opaque(block_of(4 * 1024 * 1024));
  free((char *)p);
  ready();
  (void)p[100];
  return 0;
}

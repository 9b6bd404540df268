#define _GNU_SOURCE  // MAP_ANONYMOUS
#include <sys/mman.h>
#include "testing/misuse/misuse.h"

int main(void) {
  char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return 2;
  expect("free", p, FOREIGN);
  free(opaque(p));
  return 0;
}

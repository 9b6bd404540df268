#include <malloc.h>
#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(5 * 1024);
  expect("malloc_usable_size", p, DOUBLE_FREE);
  free(p);
  if (malloc_usable_size(opaque(p)) == 0) return 2;
  return 0;
}

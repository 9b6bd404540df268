#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(100 * 1024);
  expect("realloc", p, DOUBLE_FREE);
  free(p);
  p = realloc(opaque(p), 200 * 1024);
  return p == NULL;
}

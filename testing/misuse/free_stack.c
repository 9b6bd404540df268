#include "testing/misuse/misuse.h"

int main(void) {
  char local[64];
  char *p = opaque(local);
  expect("free", p, FOREIGN);
  free(p);
  return 0;
}

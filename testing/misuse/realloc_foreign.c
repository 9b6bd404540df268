#include "testing/misuse/misuse.h"

int main(void) {
  char local[64];
  char *p = opaque(local);
  expect("realloc", p, FOREIGN);
  p = realloc(p, 128);
  return p == NULL;
}

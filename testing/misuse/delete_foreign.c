#include "testing/misuse/misuse.h"

// operator delete(void *)
void operator_delete(void *p) __asm__("_ZdlPv");

int main(void) {
  char local[64];
  char *p = opaque(local);
  expect("free", p, FOREIGN);
  operator_delete(p);
  return 0;
}

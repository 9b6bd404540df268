#include "testing/misuse/misuse.h"

int main(void) {
  void *p = opaque((void *)(uintptr_t)16);
  expect("free", p, FOREIGN);
  free(p);
  return 0;
}

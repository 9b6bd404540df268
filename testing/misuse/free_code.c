#include "testing/misuse/misuse.h"

int main(void) {
  void *p = opaque((void *)(uintptr_t)main);
  expect("free", p, FOREIGN);
  free(p);
  return 0;
}

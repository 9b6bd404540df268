#include "testing/misuse/misuse.h"

int main(void) {
  // No address space of a process reaches this far.
  void *p = opaque((void *)(uintptr_t)0x6b6b6b6b6b6b6b60);
  expect("free", p, FOREIGN);
  free(p);
  return 0;
}

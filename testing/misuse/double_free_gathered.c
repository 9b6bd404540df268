#include "testing/misuse/misuse.h"

// A thread with a heap of its own gathers what it frees of others.
static void *free_twice(void *p) {
  void *own = opaque(malloc(48));
  free(p);
  free(opaque(p));
  free(own);
  return NULL;
}

int main(void) {
  char *p = block_of(48);
  expect("free", p, DOUBLE_FREE);
  run_in_thread(free_twice, p);
  return 0;
}

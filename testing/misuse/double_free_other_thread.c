#include "testing/misuse/misuse.h"

static void *free_twice(void *p) {
  free(p);
  free(opaque(p));
  return NULL;
}

int main(void) {
  char *p = block_of(48);
  expect("free", p, DOUBLE_FREE);
  run_in_thread(free_twice, p);
  return 0;
}

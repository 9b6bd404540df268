#include "testing/misuse/misuse.h"

static void *free_once(void *p) {
  free(p);
  return NULL;
}

int main(void) {
  char *p = block_of(48);
  expect("free", p, DOUBLE_FREE);
  run_in_thread(free_once, p);
  free(opaque(p));
  return 0;
}

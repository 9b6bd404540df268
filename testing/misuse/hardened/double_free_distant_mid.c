#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(5 * 1024);
  char *others[1000];
  for (int i = 0; i < 1000; ++i) others[i] = block_of(5 * 1024);
  expect("free", p, DOUBLE_FREE);
  free(p);
  // Some stay in use: a slab without any may go back, and then nobody knows what lay there.
  for (int i = 0; i < 1000; i += 2) free(others[i]);
  free(opaque(p));
  return 0;
}

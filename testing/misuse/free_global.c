#include "testing/misuse/misuse.h"

int main(void) {
  static char global[64];
  expect("free", global, FOREIGN);
  free(opaque(global));
  return 0;
}

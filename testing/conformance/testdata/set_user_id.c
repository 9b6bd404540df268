// Linked with the allocator. Prints whether the process runs with privileges of the program's owner ("secure" or
// "plain"), and the tier of a small block.
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

#include "router/hakmem.h"

int main(void) {
  void *p = malloc(64);
  printf("%s %s\n", getauxval(AT_SECURE) != 0 ? "secure" : "plain", p == NULL ? "NULL" : hak_owner(p));
  free(p);
  return 0;
}

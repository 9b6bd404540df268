// hakmem called by name: each tier serves its sizes, and libc's blocks stay libc's.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/hakmem.h"

static int check(size_t size_bytes, const char *tier) {
  void *p = hak_malloc(size_bytes);
  const char *owner = hak_owner(p);
  int is_right = p != NULL && owner != NULL && strcmp(owner, tier) == 0 && hak_usable_size(p) >= size_bytes;
  if (!is_right) {
    fprintf(stderr, "%zu bytes: %p of %s, want %s\n", size_bytes, p, owner ? owner : "nobody", tier);
  } else {
    memset(p, 0xa5, size_bytes);
  }
  hak_free(p);
  return is_right;
}

int main(void) {
  int is_right = check(100, "tiny") & check(10000, "mid") & check(100000, "ace") & check(10000000, "huge");
  void *foreign = malloc(100);
  if (hak_owner(foreign) != NULL) {
    fputs("hakmem claims a block of libc\n", stderr);
    is_right = 0;
  }
  free(foreign);
  return is_right ? 0 : 1;
}

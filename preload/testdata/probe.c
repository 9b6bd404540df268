// Prints the tier that serves a block of each size given: "64 tiny". A size that is refused prints "64 NULL".
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

const char *hak_owner(const void *p) __attribute__((weak));

int main(int argc, char **argv) {
  if (hak_owner == NULL) {
    fputs("probe: hakmem is not preloaded\n", stderr);
    return 2;
  }
  for (int i = 1; i < argc; ++i) {
    void *p = malloc(strtoull(argv[i], NULL, 10));
    const char *owner = p == NULL ? "NULL" : hak_owner(p);
    printf("%s %s\n", argv[i], owner == NULL ? "foreign" : owner);
    free(p);
  }
  return 0;
}

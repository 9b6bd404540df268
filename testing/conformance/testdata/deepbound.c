// A library to be opened with RTLD_DEEPBIND: its malloc is libc's.
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void *deepbound_malloc(size_t size);

void *deepbound_malloc(size_t size) {
  void *p = malloc(size);
  return p == NULL ? NULL : memset(p, 'x', size);
}

#define _GNU_SOURCE  // RTLD_NEXT
#include "router/fallback.h"

#include <dlfcn.h>
#include <stdint.h>

// glibc's own entry points, exported beside the replaceable ones. Weak: another libc has none.
extern void *__libc_memalign(size_t alignment, size_t size) __attribute__((weak));
extern void *__libc_realloc(void *p, size_t size) __attribute__((weak));
extern void __libc_free(void *p) __attribute__((weak));

void *hak_fallback_malloc(size_t size, size_t alignment) {
  return __libc_memalign == NULL ? NULL : __libc_memalign(alignment, size);
}

void hak_fallback_free(void *p) {
  if (__libc_free != NULL) __libc_free(p);
}

void *hak_fallback_realloc(void *p, size_t size) { return __libc_realloc == NULL ? NULL : __libc_realloc(p, size); }

size_t hak_fallback_usable_size(const void *p) {
  size_t (*usable_size)(void *) = (size_t(*)(void *))(uintptr_t)dlsym(RTLD_NEXT, "malloc_usable_size");
  return usable_size == NULL ? 0 : usable_size((void *)(uintptr_t)p);
}

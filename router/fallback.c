#define _GNU_SOURCE  // RTLD_NEXT
#include "router/fallback.h"

#include <dlfcn.h>
#include <stdint.h>

#include "base/atomic.h"

// glibc's own entry points, which it exports beside the replaceable ones. They are looked up behind this library,
// since //preload exports the same names. All atomic; relaxed but for the first, behind which the others are published.
static void *(*libc_memalign)(size_t alignment, size_t size);
static void *(*libc_realloc)(void *p, size_t size);
static void (*libc_free)(void *p);
static size_t (*libc_usable_size)(void *p);

static uintptr_t find(const char *name) { return (uintptr_t)dlsym(RTLD_NEXT, name); }

void hak_fallback_find(void) {
  hak_store_relaxed(&libc_realloc, (void *(*)(void *, size_t))find("__libc_realloc"));
  hak_store_relaxed(&libc_free, (void (*)(void *))find("__libc_free"));
  hak_store_relaxed(&libc_usable_size, (size_t(*)(void *))find("malloc_usable_size"));
  // Last. Release: pairs with hak_fallback_found and hak_fallback_malloc, publishes the others.
  hak_store_release(&libc_memalign, (void *(*)(size_t, size_t))find("__libc_memalign"));
}

bool hak_fallback_found(void) { return hak_load_acquire(&libc_memalign) != NULL; }

void *hak_fallback_malloc(size_t size, size_t alignment) {
  // Acquire: pairs with hak_fallback_find.
  void *(*memalign)(size_t, size_t) = hak_load_acquire(&libc_memalign);
  return memalign == NULL ? NULL : memalign(alignment, size);
}

void hak_fallback_free(void *p) { hak_load_relaxed (&libc_free)(p); }

void *hak_fallback_realloc(void *p, size_t size) { return hak_load_relaxed(&libc_realloc)(p, size); }

size_t hak_fallback_usable_size(const void *p) { return hak_load_relaxed(&libc_usable_size)((void *)(uintptr_t)p); }

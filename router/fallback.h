// The debugging hatch HAKMEM_ALLOW_MALLOC_FALLBACK: libc's malloc, reached past whatever replaces it.
//
// Never used unless the variable is 1. Even then each pointer has one owner: what the registry does not know is libc's.
#ifndef HAKMEM_ROUTER_FALLBACK_H_
#define HAKMEM_ROUTER_FALLBACK_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Looks libc's functions up. Until then there is no fallback, nor in a fully static program, where no other malloc is.
// Called once, with no lock held, when the program is up: the search may allocate.
void hak_fallback_find(void);

// All as their namesakes in libc; `alignment` is a power of two. NULL also where libc offers no way past the
// replacement.
void *hak_fallback_malloc(size_t size, size_t alignment);
void hak_fallback_free(void *p);
void *hak_fallback_realloc(void *p, size_t size);
size_t hak_fallback_usable_size(const void *p);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_FALLBACK_H_

// libc's malloc, reached past whatever replaces it.
//
// Used only if one of two variables asks for it: HAKMEM_ALLOW_MALLOC_FALLBACK=1, the debugging hatch that allocates
// here what all tiers have refused, or HAKMEM_FOREIGN_FREE=libc, for blocks that libraries have from libc. Even then
// each pointer has one owner: what the registry does not know is libc's.
#ifndef HAKMEM_ROUTER_FALLBACK_H_
#define HAKMEM_ROUTER_FALLBACK_H_

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Looks libc's functions up. Until then there is no fallback, nor in a fully static program, where no other malloc is.
// Any thread, any number of times, with no lock held: the search may allocate.
void hak_fallback_find(void);

// Whether they were found.
bool hak_fallback_found(void);

// All as their namesakes in libc; `alignment` is a power of two. Only hak_fallback_malloc may be called before they
// were found: it returns NULL.
void *hak_fallback_malloc(size_t size, size_t alignment);
void hak_fallback_free(void *p);
void *hak_fallback_realloc(void *p, size_t size);
size_t hak_fallback_usable_size(const void *p);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_FALLBACK_H_

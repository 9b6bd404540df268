// libc's malloc family on top of hakmem's router.
//
// `malloc` and `free` inline the router's hot path, so that the exported symbol is the hot path; everything else is a
// tail call into a hak_* function. Where C23, POSIX and glibc leave a choice, the one made is in preload/README.md.
#define _GNU_SOURCE  // memalign, posix_memalign, reallocarray, valloc
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "platform/os.h"
#include "router/hakmem.h"
#include "router/router_inline.h"

// Not in the headers of every glibc: of C23, and what glibc exports beside its manual.
void free_sized(void *p, size_t size);
void free_aligned_sized(void *p, size_t alignment, size_t size);
void cfree(void *p);
void *__libc_malloc(size_t size);
void __libc_free(void *p);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *__libc_valloc(size_t size);
void *__libc_pvalloc(size_t size);

HAK_EXPORT void *malloc(size_t size) { return hak_router_malloc(size); }

HAK_EXPORT void free(void *p) { hak_router_free(p); }

HAK_EXPORT void *calloc(size_t n, size_t size) { return hak_calloc(n, size); }

HAK_EXPORT void *realloc(void *p, size_t size) { return hak_realloc(p, size); }

HAK_EXPORT void *reallocarray(void *p, size_t n, size_t size) { return hak_reallocarray(p, n, size); }

HAK_EXPORT void *aligned_alloc(size_t alignment, size_t size) { return hak_aligned_alloc(alignment, size); }

HAK_EXPORT int posix_memalign(void **out, size_t alignment, size_t size) {
  return hak_posix_memalign(out, alignment, size);
}

// The smallest power of two that is >= n: 1 for 0, and 0 where none fits into size_t.
static size_t power_of_two_at_least(size_t n) {
  if (n <= 1) return 1;
  if (n > SIZE_MAX / 2 + 1) return 0;
  return (size_t)2 << hak_log2_floor(n - 1);
}

// Any alignment is rounded up to a power of two, as in glibc: programs written against glibc pass 0 and 24 here. One
// that cannot be rounded up becomes 0, which hak_aligned_alloc refuses with EINVAL.
HAK_EXPORT void *memalign(size_t alignment, size_t size) {
  return hak_aligned_alloc(power_of_two_at_least(alignment), size);
}

HAK_EXPORT void *valloc(size_t size) { return hak_aligned_alloc(hak_os_linux()->page_bytes, size); }

// A size that cannot be rounded up to whole pages is above PTRDIFF_MAX, which the router refuses with ENOMEM.
HAK_EXPORT void *pvalloc(size_t size) {
  size_t page_bytes = hak_os_linux()->page_bytes;
  size_t padded = size > PTRDIFF_MAX ? size : hak_round_up(size, page_bytes);
  return hak_aligned_alloc(page_bytes, padded);
}

HAK_EXPORT size_t malloc_usable_size(void *p) { return hak_usable_size(p); }

HAK_EXPORT int malloc_trim(size_t pad) { return hak_trim(pad) != 0; }

// Size and alignment are promises of the program. The address alone says what the block is.
HAK_EXPORT void free_sized(void *p, size_t size) {
  (void)size;
  hak_router_free(p);
}

HAK_EXPORT void free_aligned_sized(void *p, size_t alignment, size_t size) {
  (void)alignment;
  (void)size;
  hak_router_free(p);
}

HAK_EXPORT void cfree(void *p) { hak_router_free(p); }

// None of glibc's knobs exists here, so that a parameter is accepted only if it asks for what is so anyway.
HAK_EXPORT int mallopt(int parameter, int value) {
  enum { PRINT_AND_ABORT = 3 };
  switch (parameter) {
    case M_CHECK_ACTION:
      return (value & PRINT_AND_ABORT) == PRINT_AND_ABORT;
    case M_PERTURB:
      return value == 0;
    default:
      return 0;
  }
}

// glibc's second names of the same functions. Programs that wrap malloc call them to get past their own wrapper; if
// these led to glibc, its blocks would end in our free.
HAK_EXPORT void *__libc_malloc(size_t size) { return hak_router_malloc(size); }

HAK_EXPORT void __libc_free(void *p) { hak_router_free(p); }

HAK_EXPORT void *__libc_calloc(size_t n, size_t size) { return hak_calloc(n, size); }

HAK_EXPORT void *__libc_realloc(void *p, size_t size) { return hak_realloc(p, size); }

HAK_EXPORT void *__libc_memalign(size_t alignment, size_t size) { return memalign(alignment, size); }

HAK_EXPORT void *__libc_valloc(size_t size) { return valloc(size); }

HAK_EXPORT void *__libc_pvalloc(size_t size) { return pvalloc(size); }

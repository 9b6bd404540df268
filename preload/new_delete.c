// The 20 replaceable forms of C++17's operator new and operator delete, written in C so that the library needs no C++
// runtime.
//
// Four forms talk to the router: new(size), delete(p), and the same with an alignment. As the standard demands, every
// other form ends in one of these *as the program sees it*: a program that replaces only operator new(size_t) and
// operator delete(void *) gets its own functions for new[], nothrow new and sized delete as well.
//
//     new[] nothrow  ->  new[]  ->  new  <-  new nothrow
//     delete[] sized, nothrow  ->  delete[]  ->  delete  <-  delete sized, nothrow
//
// For the same reason the definitions are weak (in a static link the program's own ones win) and are listed in
// preload/interposable.lds, which keeps the linker from binding these calls to the definitions below.
//
// Failure is for the C++ runtime that is loaded in the process. Its own operator new tries malloc (ours) again, runs
// the new handler and throws std::bad_alloc; its nothrow form catches what a handler throws, which C cannot. It is
// looked up when needed, because a plugin may have brought it in with RTLD_LOCAL, out of reach of weak references. This
// file is compiled with -fexceptions, so that exceptions pass through its frames.
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "platform/report.h"
#include "router/hakmem.h"
#include "router/router_inline.h"

// What `const std::nothrow_t &` refers to; never looked at.
struct nothrow;

typedef void (*new_handler)(void);
typedef void *(*new_function)(size_t size);
typedef void *(*new_nothrow_function)(size_t size, const struct nothrow *tag);
typedef void *(*new_aligned_function)(size_t size, size_t alignment);
typedef void *(*new_aligned_nothrow_function)(size_t size, size_t alignment, const struct nothrow *tag);

// The C++ operators, each a C function under its mangled name. Those that other forms are made of are aliases of the
// functions own_*: comparing the two tells whether the program sees this file's definition or one of its own. (A
// non-PIE program that takes the address of operator new counts as having replaced it: slower, equally right.)
#define OPERATOR(mangled) __asm__(mangled) __attribute__((weak)) HAK_EXPORT
#define OPERATOR_ALIAS(mangled, own) __asm__(mangled) __attribute__((weak, alias(#own))) HAK_EXPORT

void *new_plain(size_t size) OPERATOR_ALIAS("_Znwm", own_new);
void *new_array(size_t size) OPERATOR_ALIAS("_Znam", own_new_array);
void *new_nothrow(size_t size, const struct nothrow *tag) OPERATOR("_ZnwmRKSt9nothrow_t");
void *new_array_nothrow(size_t size, const struct nothrow *tag) OPERATOR("_ZnamRKSt9nothrow_t");
void *new_aligned(size_t size, size_t alignment) OPERATOR_ALIAS("_ZnwmSt11align_val_t", own_new_aligned);
void *new_array_aligned(size_t size, size_t alignment) OPERATOR_ALIAS("_ZnamSt11align_val_t", own_new_array_aligned);
void *new_aligned_nothrow(size_t size, size_t alignment, const struct nothrow *tag)
    OPERATOR("_ZnwmSt11align_val_tRKSt9nothrow_t");
void *new_array_aligned_nothrow(size_t size, size_t alignment, const struct nothrow *tag)
    OPERATOR("_ZnamSt11align_val_tRKSt9nothrow_t");

void delete_plain(void *p) OPERATOR("_ZdlPv");
void delete_array(void *p) OPERATOR("_ZdaPv");
void delete_sized(void *p, size_t size) OPERATOR("_ZdlPvm");
void delete_array_sized(void *p, size_t size) OPERATOR("_ZdaPvm");
void delete_nothrow(void *p, const struct nothrow *tag) OPERATOR("_ZdlPvRKSt9nothrow_t");
void delete_array_nothrow(void *p, const struct nothrow *tag) OPERATOR("_ZdaPvRKSt9nothrow_t");
void delete_aligned(void *p, size_t alignment) OPERATOR("_ZdlPvSt11align_val_t");
void delete_array_aligned(void *p, size_t alignment) OPERATOR("_ZdaPvSt11align_val_t");
void delete_sized_aligned(void *p, size_t size, size_t alignment) OPERATOR("_ZdlPvmSt11align_val_t");
void delete_array_sized_aligned(void *p, size_t size, size_t alignment) OPERATOR("_ZdaPvmSt11align_val_t");
void delete_aligned_nothrow(void *p, size_t alignment, const struct nothrow *tag)
    OPERATOR("_ZdlPvSt11align_val_tRKSt9nothrow_t");
void delete_array_aligned_nothrow(void *p, size_t alignment, const struct nothrow *tag)
    OPERATOR("_ZdaPvSt11align_val_tRKSt9nothrow_t");

// What the C++ runtime and libc offer if they are there: a C program has no C++ runtime, a static program no dlopen.
new_handler get_new_handler(void) __asm__("_ZSt15get_new_handlerv") __attribute__((weak));
HAK_NORETURN void throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv") __attribute__((weak));
#pragma weak dlopen
#pragma weak dlsym
#pragma weak dlclose

// The own definition of `mangled` in the loaded C++ runtime, or NULL. The runtime is asked by its name and not with
// RTLD_NEXT, which might find another allocator that the program is linked with: its memory has no owner here.
static void *runtime_definition(const char *mangled) {
  static const char *const sonames[] = {"libstdc++.so.6", "libc++.so.1"};
  if (dlopen == NULL || dlsym == NULL || dlclose == NULL) return NULL;
  for (size_t i = 0; i < sizeof sonames / sizeof sonames[0]; ++i) {
    void *runtime = dlopen(sonames[i], RTLD_LAZY | RTLD_NOLOAD);
    if (runtime == NULL) continue;
    void *definition = dlsym(runtime, mangled);
    dlclose(runtime);  // undoes this dlopen alone; whoever loaded the runtime still holds it
    if (definition != NULL) return definition;
  }
  return NULL;
}

// Without a runtime to ask: runs the new handler until a block can be had; NULL once no handler is set. `alignment` 0
// stands for the forms without one, here and below.
static void *retry_with_handler(size_t size, size_t alignment) {
  while (get_new_handler != NULL) {
    new_handler handler = get_new_handler();
    if (handler == NULL) break;
    handler();
    void *p = alignment == 0 ? hak_malloc(size) : hak_aligned_alloc(alignment, size);
    if (p != NULL) return p;
  }
  return NULL;
}

// libstdc++ rounds the size up to the alignment without a look at overflow, and would serve SIZE_MAX with a block of 0
// bytes. No size from here on can be served, so that it is all the same to ask for this one.
static size_t size_for_runtime(size_t size) { return hak_min(size, (size_t)1 << 62); }

HAK_COLD static void *new_slow(size_t size, size_t alignment) {
  void *runtime = runtime_definition(alignment == 0 ? "_Znwm" : "_ZnwmSt11align_val_t");
  if (runtime != NULL) {
    return alignment == 0 ? ((new_function)runtime)(size)
                          : ((new_aligned_function)runtime)(size_for_runtime(size), alignment);
  }
  void *p = retry_with_handler(size, alignment);
  if (p != NULL) return p;
  if (throw_bad_alloc != NULL) throw_bad_alloc();
  hak_report("FATAL: operator new(%zu): out of memory, and there is no C++ runtime to throw std::bad_alloc", size);
  abort();
}

// The nothrow forms when memory has run out, or when the program has `replaced` the form that they are made of (else
// NULL). Where there is no runtime to ask, an exception out of the program's own new or new handler is not caught.
HAK_COLD static void *new_nothrow_slow(const char *mangled, size_t size, const struct nothrow *tag,
                                       new_function replaced) {
  void *runtime = runtime_definition(mangled);
  if (runtime != NULL) return ((new_nothrow_function)runtime)(size, tag);
  return replaced != NULL ? replaced(size) : retry_with_handler(size, 0);
}

HAK_COLD static void *new_aligned_nothrow_slow(const char *mangled, size_t size, size_t alignment,
                                               const struct nothrow *tag, new_aligned_function replaced) {
  void *runtime = runtime_definition(mangled);
  if (runtime != NULL) return ((new_aligned_nothrow_function)runtime)(size_for_runtime(size), alignment, tag);
  return replaced != NULL ? replaced(size, alignment) : retry_with_handler(size, alignment);
}

// Apart from own_new, which needs no stack frame this way.
HAK_NOINLINE static void *new_miss(size_t size) {
  void *p = hak_router_malloc_uncached(size);
  return HAK_LIKELY(p != NULL) ? p : new_slow(size, 0);
}

static void *own_new(size_t size) {
  void *p = hak_router_malloc_cached(size);
  return HAK_LIKELY(p != NULL) ? p : new_miss(size);
}

static void *own_new_array(size_t size) { return new_plain(size); }

static void *own_new_aligned(size_t size, size_t alignment) {
  void *p = hak_aligned_alloc(alignment, size);
  return HAK_LIKELY(p != NULL) ? p : new_slow(size, alignment);
}

static void *own_new_array_aligned(size_t size, size_t alignment) { return new_aligned(size, alignment); }

void *new_nothrow(size_t size, const struct nothrow *tag) {
  new_function replaced = new_plain == own_new ? NULL : new_plain;
  void *p = replaced == NULL ? hak_router_malloc(size) : NULL;
  return HAK_LIKELY(p != NULL) ? p : new_nothrow_slow("_ZnwmRKSt9nothrow_t", size, tag, replaced);
}

void *new_array_nothrow(size_t size, const struct nothrow *tag) {
  new_function replaced = new_array != own_new_array ? new_array : new_plain != own_new ? new_plain : NULL;
  void *p = replaced == NULL ? hak_router_malloc(size) : NULL;
  return HAK_LIKELY(p != NULL) ? p : new_nothrow_slow("_ZnamRKSt9nothrow_t", size, tag, replaced);
}

void *new_aligned_nothrow(size_t size, size_t alignment, const struct nothrow *tag) {
  new_aligned_function replaced = new_aligned == own_new_aligned ? NULL : new_aligned;
  void *p = replaced == NULL ? hak_aligned_alloc(alignment, size) : NULL;
  return HAK_LIKELY(p != NULL)
             ? p
             : new_aligned_nothrow_slow("_ZnwmSt11align_val_tRKSt9nothrow_t", size, alignment, tag, replaced);
}

void *new_array_aligned_nothrow(size_t size, size_t alignment, const struct nothrow *tag) {
  new_aligned_function replaced = new_array_aligned != own_new_array_aligned ? new_array_aligned
                                  : new_aligned != own_new_aligned           ? new_aligned
                                                                             : NULL;
  void *p = replaced == NULL ? hak_aligned_alloc(alignment, size) : NULL;
  return HAK_LIKELY(p != NULL)
             ? p
             : new_aligned_nothrow_slow("_ZnamSt11align_val_tRKSt9nothrow_t", size, alignment, tag, replaced);
}

void delete_plain(void *p) { hak_router_free(p); }

void delete_array(void *p) { delete_plain(p); }

void delete_sized(void *p, size_t size) {
  (void)size;
  delete_plain(p);
}

void delete_array_sized(void *p, size_t size) {
  (void)size;
  delete_array(p);
}

void delete_nothrow(void *p, const struct nothrow *tag) {
  (void)tag;
  delete_plain(p);
}

void delete_array_nothrow(void *p, const struct nothrow *tag) {
  (void)tag;
  delete_array(p);
}

void delete_aligned(void *p, size_t alignment) {
  (void)alignment;
  hak_router_free(p);
}

void delete_array_aligned(void *p, size_t alignment) { delete_aligned(p, alignment); }

void delete_sized_aligned(void *p, size_t size, size_t alignment) {
  (void)size;
  delete_aligned(p, alignment);
}

void delete_array_sized_aligned(void *p, size_t size, size_t alignment) {
  (void)size;
  delete_array_aligned(p, alignment);
}

void delete_aligned_nothrow(void *p, size_t alignment, const struct nothrow *tag) {
  (void)tag;
  delete_aligned(p, alignment);
}

void delete_array_aligned_nothrow(void *p, size_t alignment, const struct nothrow *tag) {
  (void)tag;
  delete_array_aligned(p, alignment);
}

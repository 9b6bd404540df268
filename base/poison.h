// Memory that nobody may touch just now: freed, or never handed out. AddressSanitizer and Valgrind's memcheck are told,
// so that they report a program that does. In all other builds this is nothing, and costs nothing.
//
// The pool's memory is poisoned when it is mapped; each tier unpoisons the blocks that it hands out, and poisons those
// it gets back. What goes back to the system is unpoisoned, for whoever maps there next. The router poisons what a
// block has beyond the bytes that were asked for.
#ifndef HAKMEM_BASE_POISON_H_
#define HAKMEM_BASE_POISON_H_

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAK_CONFIG_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAK_CONFIG_ASAN 1
#endif
#endif
#ifndef HAK_CONFIG_ASAN
#define HAK_CONFIG_ASAN 0
#endif

// Wanted by //bazel:variant, and there where Valgrind's headers are.
#if HAK_CONFIG_VALGRIND && __has_include(<valgrind/memcheck.h>)
#define HAK_POISON_VALGRIND 1
#else
#define HAK_POISON_VALGRIND 0
#endif

#define HAK_POISON (HAK_CONFIG_ASAN || HAK_POISON_VALGRIND)

#if HAK_CONFIG_ASAN
#include <sanitizer/asan_interface.h>
// A function that reads or writes poisoned memory, for what the allocator itself keeps there.
#define HAK_REACHES_POISON __attribute__((noinline, unused, no_sanitize("address")))
#else
#define HAK_REACHES_POISON HAK_ALWAYS_INLINE
#endif

#if HAK_POISON_VALGRIND
#include <valgrind/memcheck.h>
#endif

// Makes every access to [start, start + bytes) an error, until it is unpoisoned. An end in the middle of 8 bytes is
// exact only if the rest of them is poisoned, or becomes so.
static inline void hak_poison(const void *start, size_t bytes) {
  (void)start;
  (void)bytes;
#if HAK_CONFIG_ASAN
  __asan_poison_memory_region(start, bytes);
#elif HAK_POISON_VALGRIND
  VALGRIND_MAKE_MEM_NOACCESS(start, bytes);
#endif
}

// Allows all accesses to [start, start + bytes). Its content counts as defined.
static inline void hak_unpoison(const void *start, size_t bytes) {
  (void)start;
  (void)bytes;
#if HAK_CONFIG_ASAN
  __asan_unpoison_memory_region(start, bytes);
#elif HAK_POISON_VALGRIND
  VALGRIND_MAKE_MEM_DEFINED(start, bytes);
#endif
}

// The word at `address`, which is in poisoned memory and stays so.
static HAK_REACHES_POISON uintptr_t hak_poisoned_load(uintptr_t address) {
  if (HAK_POISON_VALGRIND) hak_unpoison((const void *)address, sizeof(uintptr_t));
  uintptr_t word = *(const uintptr_t *)address;
  if (HAK_POISON_VALGRIND) hak_poison((const void *)address, sizeof(uintptr_t));
  return word;
}

static HAK_REACHES_POISON void hak_poisoned_store(uintptr_t address, uintptr_t word) {
  if (HAK_POISON_VALGRIND) hak_unpoison((const void *)address, sizeof(uintptr_t));
  *(uintptr_t *)address = word;
  if (HAK_POISON_VALGRIND) hak_poison((const void *)address, sizeof(uintptr_t));
}

// Tells memcheck, which keeps a list of them for leaks and for its messages, that the program has a block of `bytes`
// at `p` from here on, of undefined content; and that it has it no more.
static inline void hak_note_block(const void *p, size_t bytes) {
  (void)p;
  (void)bytes;
#if HAK_POISON_VALGRIND
  VALGRIND_MALLOCLIKE_BLOCK(p, bytes, 0, 0);
#endif
}

static inline void hak_note_free(const void *p) {
  (void)p;
#if HAK_POISON_VALGRIND
  VALGRIND_FREELIKE_BLOCK(p, 0);
#endif
}

#endif  // HAKMEM_BASE_POISON_H_

// What the code asks of the compiler, under names that say why. The only place for compiler-specific attributes.
#ifndef HAKMEM_BASE_COMPILER_H_
#define HAKMEM_BASE_COMPILER_H_

#include <stdbool.h>

#define HAK_LIKELY(x) __builtin_expect(!!(x), 1)
#define HAK_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define HAK_NOINLINE __attribute__((noinline))
#define HAK_ALWAYS_INLINE inline __attribute__((always_inline))

// A path that is rarely taken: kept out of the hot code's cache lines.
#define HAK_COLD __attribute__((noinline, cold))

#define HAK_NORETURN __attribute__((noreturn))

// A symbol that a shared library offers to programs; everything else is hidden.
#define HAK_EXPORT __attribute__((visibility("default")))
#define HAK_HIDDEN __attribute__((visibility("hidden")))

// 1 in //preload:libhakmem-dlopen.so.
#ifndef HAK_CONFIG_DLOPEN
#define HAK_CONFIG_DLOPEN 0
#endif

// How thread-local state is reached: through the static TLS block, with one load of an offset and no call; or with the
// call that a library needs which is opened when that block is already laid out. See DESIGN.md, "Thread-local state".
#if HAK_CONFIG_DLOPEN
#define HAK_TLS_MODEL __attribute__((tls_model("global-dynamic")))
#else
#define HAK_TLS_MODEL __attribute__((tls_model("initial-exec")))
#endif

#define HAK_PRINTF(text, first) __attribute__((format(printf, text, first)))

// Which locks a function takes, gives back or needs, behind its parameters; clang checks it (testing/analyze.sh). What
// that check cannot follow (a lock chosen at run time, all locks of an array) is marked as unchecked, with a reason.
#if defined(__clang__)
#define HAK_LOCK_TYPE __attribute__((capability("mutex")))
#define HAK_ACQUIRES(...) __attribute__((acquire_capability(__VA_ARGS__)))
#define HAK_RELEASES(...) __attribute__((release_capability(__VA_ARGS__)))
#define HAK_REQUIRES(...) __attribute__((requires_capability(__VA_ARGS__)))
#define HAK_LOCKS_UNCHECKED __attribute__((no_thread_safety_analysis))
#else
#define HAK_LOCK_TYPE
#define HAK_ACQUIRES(...)
#define HAK_RELEASES(...)
#define HAK_REQUIRES(...)
#define HAK_LOCKS_UNCHECKED
#endif

// 1 in builds that check internal invariants (bazel --config=checked).
#ifndef HAK_CONFIG_CHECKED
#define HAK_CONFIG_CHECKED 0
#endif

// 1 in //preload:libhakmem-valgrind.so: memcheck is told of blocks (base/poison.h).
#ifndef HAK_CONFIG_VALGRIND
#define HAK_CONFIG_VALGRIND 0
#endif

// 1 in the hardened library (//preload:libhakmem-hardened.so): see docs/misuse.md.
#ifndef HAK_CONFIG_HARDENED
#define HAK_CONFIG_HARDENED 0
#endif

// Hides from the compiler how `value` was made: a pointer is kept in one register, and everything reached at constant
// distances from there, instead of computing an address for each.
#define HAK_HIDE(value) __asm__("" : "+r"(value))

// Keeps the compiler from moving memory accesses over this point, and tells the processor nothing.
#define HAK_COMPILER_BARRIER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

// *difference = a ^ b; true if that is zero. The compiler would compare a and b once more instead of using the flags
// that the XOR has set, which is one instruction of the 18 that free may have.
static HAK_ALWAYS_INLINE bool hak_xor_is_zero(unsigned long a, unsigned long b, unsigned long *difference) {
#if defined(__x86_64__)
  bool zero;
  __asm__("xorq %[b], %[a]" : [a] "+r"(a), "=@ccz"(zero) : [b] "r"(b));
  *difference = a;
  return zero;
#else
  *difference = a ^ b;
  return *difference == 0;
#endif
}

#endif  // HAKMEM_BASE_COMPILER_H_

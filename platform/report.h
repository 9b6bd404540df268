// What the allocator says on stderr: one line at a time, written with one write(2), without allocating.
#ifndef HAKMEM_PLATFORM_REPORT_H_
#define HAKMEM_PLATFORM_REPORT_H_

#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

// Writes "[HAKMEM] " and the formatted line. Knows %s, %p (0x and hexadecimal digits), %zu and %u; a line longer than
// 255 bytes is cut. Keeps errno. Async-signal-safe.
void hak_report(const char *format, ...) HAK_PRINTF(1, 2);

// Misuse of the block at `p`: writes "[HAKMEM] FATAL: <function>(<p>): <reason>" and aborts the program.
HAK_COLD HAK_NORETURN void hak_fatal_misuse(const char *function, const void *p, const char *reason);

// A broken internal invariant, in checked builds: writes the expression and its place and aborts.
HAK_COLD HAK_NORETURN void hak_fatal_invariant(const char *expression, const char *file, unsigned line);

// Checks an invariant in builds with --config=checked; costs nothing otherwise.
#define HAK_CHECK(condition)                                                                               \
  do {                                                                                                     \
    if (HAK_CONFIG_CHECKED && !(condition)) hak_fatal_invariant(#condition, __FILE__, (unsigned)__LINE__); \
  } while (0)

// The reasons, one fixed text each (docs/misuse.md).
#define HAK_MISUSE_FOREIGN "pointer was not allocated by hakmem"
// The same where it lies outside of hakmem's memory, and so may be a block of another malloc. Names the usual cause.
#define HAK_MISUSE_ELSEWHERE \
  HAK_MISUSE_FOREIGN         \
  "; if libc's malloc did, for a library opened with RTLD_DEEPBIND, set HAKMEM_FOREIGN_FREE=libc"
#define HAK_MISUSE_DOUBLE_FREE "double free"
#define HAK_MISUSE_UNALIGNED "pointer is not aligned to 16 bytes"
#define HAK_MISUSE_CORRUPTED "free list is corrupted"
#define HAK_MISUSE_OVERFLOW "block was overflowed"
#define HAK_MISUSE_NOT_START "pointer is not the start of a block"

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_REPORT_H_

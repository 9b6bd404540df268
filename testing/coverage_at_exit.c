// Linked into coverage builds only. gcov writes its counts in exit(), which neither a test of misuse nor the child of a
// fork gets to: here abort and _exit write them as well.
#define _GNU_SOURCE  // syscall
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

void __gcov_dump(void);

// The handler of another copy of this file: the preload library and the program have counts, and one, of their own.
static void (*previous)(int);

static void dump_at_abort(int number) {
  __gcov_dump();  // NOLINT(bugprone-signal-handler): abort() is called outside of gcov, never within
  (void)signal(SIGABRT, previous);
  (void)raise(number);
}

__attribute__((constructor)) static void watch_for_abort(void) { previous = signal(SIGABRT, dump_at_abort); }

void _exit(int status) {
  __gcov_dump();
  for (;;) (void)syscall(SYS_exit_group, status);
}

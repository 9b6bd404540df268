// Linked into coverage builds only. gcov writes its counts in exit(), which neither a test of misuse nor the child of a
// fork gets to: here abort and _exit write them as well.
#define _GNU_SOURCE  // syscall
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

void __gcov_dump(void);

// The handler of another copy of this file: the preload library and the program have counts, and one, of their own.
static void (*previous)(int);

// gcov allocates, and so may find the misuse that has brought us here once more: it is not reported again, and the
// second abort() ends the process.
static void dump_at_abort(int number) {
  (void)signal(SIGABRT, previous);
  (void)close(STDERR_FILENO);
  __gcov_dump();  // NOLINT(bugprone-signal-handler): the first abort() is called outside of gcov
  (void)raise(number);
}

__attribute__((constructor)) static void watch_for_abort(void) { previous = signal(SIGABRT, dump_at_abort); }

void _exit(int status) {
  __gcov_dump();
  for (;;) (void)syscall(SYS_exit_group, status);
}

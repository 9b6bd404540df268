// A crash reporter: a handler of SIGABRT in which another thread forks.
#define _DEFAULT_SOURCE  // sigaction
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing/misuse/misuse.h"

static void *fork_once(void *unused) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, NULL, 0);
  return unused;
}

static void report(int signal) {
  (void)signal;
  alarm(20);
  run_in_thread(fork_once, NULL);
}

int main(void) {
  struct sigaction action = {.sa_handler = report};
  char *p = block_of(64);
  sigaction(SIGABRT, &action, NULL);
  expect("free", p, DOUBLE_FREE);
  free(p);
  free(opaque(p));
  return 0;
}

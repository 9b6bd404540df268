// A program of one thread that forks in a signal handler, at any moment of its mallocs and frees in every tier. Prints
// "ok".
#define _DEFAULT_SOURCE  // sigaction, setitimer
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 500, BLOCKS = 64 };

static const size_t sizes[] = {100, 5000, 100000, 3000000};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static volatile sig_atomic_t n_forks, n_failed;

static void fork_now(int signal) {
  (void)signal;
  pid_t child = fork();
  if (child == 0) _exit(0);
  int status = -1;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) ++n_failed;
  ++n_forks;
}

static void allocate_and_free(size_t size) {
  char *blocks[BLOCKS];
  for (size_t i = 0; i < BLOCKS; ++i) {
    blocks[i] = malloc(size + i * 64);
    blocks[i][0] = 1;
  }
  for (size_t i = 0; i < BLOCKS; ++i) free(blocks[i]);
}

int main(void) {
  struct itimerval often = {{0, 700}, {0, 700}};
  struct itimerval never = {{0, 0}, {0, 0}};
  struct sigaction action = {.sa_handler = fork_now, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  for (size_t i = 0; i < SIZES; ++i) {
    n_forks = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    while (n_forks < FORKS) allocate_and_free(sizes[i]);
    setitimer(ITIMER_REAL, &never, NULL);
  }
  puts(n_failed == 0 ? "ok" : "a fork failed");
  return n_failed != 0;
}

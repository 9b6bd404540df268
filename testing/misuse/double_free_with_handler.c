// A crash reporter: a handler of SIGABRT that has another thread fork, and waits for it.
#define _DEFAULT_SOURCE  // sigaction
#include <semaphore.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing/misuse/misuse.h"

enum { SECONDS = 20 };

static sem_t wanted, done;

static void *reporter(void *unused) {
  sem_wait(&wanted);
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, NULL, 0);
  sem_post(&done);
  return unused;
}

static void report(int signal) {
  (void)signal;
  alarm(SECONDS);  // a hang
  sem_post(&wanted);
  sem_wait(&done);
}

int main(void) {
  struct sigaction action = {.sa_handler = report};
  pthread_t thread;
  sem_init(&wanted, 0, 0);
  sem_init(&done, 0, 0);
  if (pthread_create(&thread, NULL, reporter, NULL) != 0) return 2;
  char *p = block_of(64);
  sigaction(SIGABRT, &action, NULL);
  expect("free", p, DOUBLE_FREE);
  free(p);
  free(opaque(p));
  return 0;
}

#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "testing/misuse/misuse.h"

enum { ROUNDS = 300 };

static atomic_int n_ready;

static void *free_at_once(void *p) {
  // Without a sleep, after which the one would come long before the other.
  atomic_fetch_add(&n_ready, 1);
  while (atomic_load(&n_ready) != 2) continue;
  free(p);
  return NULL;
}

static void free_in_two_threads(void *p) {
  pthread_t other;
  if (pthread_create(&other, NULL, free_at_once, p) != 0) exit(2);
  free_at_once(opaque(p));
  pthread_join(other, NULL);
}

// Many times in children, which say nothing, since one time may go well by chance.
int main(void) {
  char *p = block_of(100000);
  for (int i = 0; i < ROUNDS; ++i) {
    pid_t child = fork();
    if (child == 0) {
      close(STDERR_FILENO);
      free_in_two_threads(p);
      _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || WIFEXITED(status)) return 1;
  }
  expect("free", p, DOUBLE_FREE);
  free_in_two_threads(p);
  return 0;
}

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "testing/misuse/misuse.h"

int main(void) {
  char *p = block_of(48);
  expect("free", p, DOUBLE_FREE);
  free(p);
  pid_t child = fork();
  if (child == 0) free(opaque(p));
  int status;
  if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status)) return 2;
  raise(WTERMSIG(status));
  return 0;
}

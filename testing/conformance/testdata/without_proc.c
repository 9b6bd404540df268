// Runs a program with nothing in /proc: without_proc PROGRAM [ARGS...]. Exit status 77: not permitted here.
#define _GNU_SOURCE  // unshare
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <unistd.h>

enum { CANNOT = 77 };

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return CANNOT;
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return CANNOT;
  if (mount("none", "/proc", "tmpfs", MS_RDONLY, NULL) != 0) return CANNOT;
  if (access("/proc/self", F_OK) == 0) return 2;
  execv(argv[1], argv + 1);
  return 127;
}

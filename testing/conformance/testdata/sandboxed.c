// Gives up the right to open files, on pain of death, as sandboxes do once they have begun, and then needs memory.
// Prints "ok". Exit status 77: filters are not to be had here.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { CANNOT = 77, BLOCKS = 100000, BYTES = 600 };

static int install(void) {
  struct sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog filter = {sizeof program / sizeof program[0], program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

int main(void) {
  static char *blocks[BLOCKS];
  if (!install()) return CANNOT;
  for (size_t i = 0; i < BLOCKS; ++i) {
    blocks[i] = malloc(BYTES);
    if (blocks[i] == NULL) return 1;
    memset(blocks[i], 1, BYTES);
  }
  for (size_t i = 0; i < BLOCKS; ++i) free(blocks[i]);
  puts("ok");
  return 0;
}

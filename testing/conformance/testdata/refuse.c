// Runs a program with a seccomp filter that refuses system calls which many programs never need, as sandboxes do:
// refuse ERRNO PROGRAM [ARGS...]. Exit status 77: filters are not to be had here.
#define _DEFAULT_SOURCE  // madvise
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CANNOT = 77 };

static const unsigned refused[] = {
    SYS_madvise, SYS_mremap,  SYS_membarrier,    SYS_mincore,    SYS_mlock,       SYS_getcpu,
    SYS_mbind,   SYS_sysinfo, SYS_get_mempolicy, SYS_pkey_alloc, SYS_userfaultfd, SYS_memfd_create,
};
enum { REFUSED = sizeof refused / sizeof refused[0] };

static int install(unsigned error) {
  // For each call a comparison that, if it holds, jumps to the last instruction.
  struct sock_filter program[REFUSED + 3];
  program[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (unsigned i = 0; i < REFUSED; ++i) {
    program[1 + i] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], (unsigned char)(REFUSED - i), 0);
  }
  program[REFUSED + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  program[REFUSED + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
  struct sock_fprog filter = {REFUSED + 3, program};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  unsigned error = (unsigned)atoi(argv[1]);
  if (!install(error)) return CANNOT;
  // The filter is at work.
  if (madvise(NULL, 0, MADV_DONTNEED) == 0 || errno != (int)error) return 2;
  execv(argv[2], argv + 2);
  return 127;
}

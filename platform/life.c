#define _GNU_SOURCE  // syscall
#include "platform/life.h"

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"

struct hak_life hak_life_own(void) {
  return (struct hak_life){.process = getpid(), .thread = (pid_t)syscall(SYS_gettid)};
}

bool hak_life_is_over(struct hak_life life) {
  int saved_errno = errno;
  bool over = life.process == getpid() && syscall(SYS_tgkill, life.process, life.thread, 0) != 0 && errno == ESRCH;
  errno = saved_errno;
  return over;
}

// The kernel reads a set of signals before it finds that nothing is to be done with it.
static bool is_readable_at(uintptr_t address) {
  const int nothing = -1;
  uint64_t *set = (uint64_t *)hak_round_down(address, sizeof *set);
  return syscall(SYS_rt_sigprocmask, nothing, set, NULL, sizeof *set) == 0 || errno != EFAULT;
}

bool hak_is_readable(const void *p, size_t bytes) {
  int saved_errno = errno;
  bool readable = is_readable_at((uintptr_t)p) && is_readable_at((uintptr_t)p + bytes - 1);
  errno = saved_errno;
  return readable;
}

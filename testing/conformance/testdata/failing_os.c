// Preloaded beside the allocator: mmap, mremap and madvise that fail when they are told to.
#define _GNU_SOURCE  // mremap
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

long failing_os_fail_at(long call, long n_calls);

// The next call is number 1. Calls from `first` on, so many of them, fail; those after them work again.
static long n_calls_made, first_to_fail, n_to_fail;

// Sets what is to fail, counting from the next call, and returns how many calls there were since this was set last.
long failing_os_fail_at(long call, long n_calls) {
  long made = n_calls_made;
  n_calls_made = 0;
  first_to_fail = call;
  n_to_fail = n_calls;
  return made;
}

static int fails(void) {
  ++n_calls_made;
  return n_calls_made >= first_to_fail && n_calls_made - first_to_fail < n_to_fail;
}

void *mmap(void *start, size_t bytes, int protection, int flags, int file, off_t offset) {
  if (fails()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return (void *)syscall(SYS_mmap, start, bytes, protection, flags, file, offset);
}

void *mremap(void *start, size_t old_bytes, size_t new_bytes, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  void *target = (flags & MREMAP_FIXED) != 0 ? va_arg(arguments, void *) : NULL;
  va_end(arguments);
  if (fails()) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return (void *)syscall(SYS_mremap, start, old_bytes, new_bytes, flags, target);
}

int madvise(void *start, size_t bytes, int advice) {
  if (fails()) {
    errno = EAGAIN;
    return -1;
  }
  return (int)syscall(SYS_madvise, start, bytes, advice);
}

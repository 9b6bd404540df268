#define _GNU_SOURCE  // O_CLOEXEC, syscall
#include "platform/small_file.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

size_t hak_small_file_read(const char *path, char *text, size_t size) {
  size_t length = 0;
  long file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    long n;
    while ((n = syscall(SYS_read, file, text + length, size - 1 - length)) > 0) length += (size_t)n;
    (void)syscall(SYS_close, file);
  }
  text[length] = '\0';
  return length;
}

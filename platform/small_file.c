#define _GNU_SOURCE  // O_CLOEXEC
#include "platform/small_file.h"

#include <fcntl.h>
#include <unistd.h>

size_t hak_small_file_read(const char *path, char *text, size_t size) {
  size_t length = 0;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    ssize_t n;
    while ((n = read(file, text + length, size - 1 - length)) > 0) length += (size_t)n;
    (void)close(file);
  }
  text[length] = '\0';
  return length;
}

// Reading a small file of the kernel's, without allocating. By system calls and not by libc's functions, which are
// cancellation points, as malloc must not be, and which a program may replace.
#ifndef HAKMEM_PLATFORM_SMALL_FILE_H_
#define HAKMEM_PLATFORM_SMALL_FILE_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Reads the file at `path` into text[0 .. size - 1], size at least 1, as far as there is room, and ends it with a zero;
// the number of bytes before that, 0 if the file cannot be read. Changes errno. Any thread.
size_t hak_small_file_read(const char *path, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_SMALL_FILE_H_

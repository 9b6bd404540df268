#define _GNU_SOURCE  // syscall
#include "platform/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct line {
  size_t length;
  char text[256];
};

static void put_char(struct line *line, char c) {
  // The last byte is kept for the newline.
  if (line->length < sizeof line->text - 1) line->text[line->length++] = c;
}

static void put_string(struct line *line, const char *s) {
  // What comes from the environment must not end the line.
  for (; *s != '\0'; ++s) {
    char c = *s;
    if ((unsigned char)c < ' ') c = '?';
    put_char(line, c);
  }
}

static void put_number(struct line *line, uintptr_t n, unsigned base) {
  char digits[20];
  size_t count = 0;
  do {
    digits[count++] = "0123456789abcdef"[n % base];
    n /= base;
  } while (n != 0);
  while (count != 0) put_char(line, digits[--count]);
}

// Formatted by hand, because the printf family may allocate and take locks.
static void put_format(struct line *line, const char *format, va_list arguments) {
  for (const char *f = format; *f != '\0'; ++f) {
    if (*f != '%') {
      put_char(line, *f);
      continue;
    }
    switch (*++f) {
      case 's':
        put_string(line, va_arg(arguments, const char *));
        break;
      case 'p':
        put_string(line, "0x");
        put_number(line, (uintptr_t)va_arg(arguments, void *), 16);
        break;
      case 'u':
        put_number(line, va_arg(arguments, unsigned), 10);
        break;
      case 'z':  // %zu
        ++f;
        put_number(line, va_arg(arguments, size_t), 10);
        break;
      default:
        put_char(line, *f);
    }
  }
}

void hak_report(const char *format, ...) {
  int saved_errno = errno;
  struct line line = {.length = 0};
  put_string(&line, "[HAKMEM] ");
  va_list arguments;
  va_start(arguments, format);
  put_format(&line, format, arguments);
  va_end(arguments);
  line.text[line.length++] = '\n';
  // A line that cannot be written (stderr is closed) is lost: there is nobody to tell.
  // By system call, since libc's function is a cancellation point.
  (void)syscall(SYS_write, STDERR_FILENO, line.text, line.length);
  errno = saved_errno;
}

void hak_fatal_misuse(const char *function, const void *p, const char *reason) {
  hak_report("FATAL: %s(%p): %s", function, (void *)(uintptr_t)p, reason);
  abort();
}

void hak_fatal_invariant(const char *expression, const char *file, unsigned line) {
  hak_report("FATAL: invariant broken: %s at %s:%u", expression, file, line);
  abort();
}

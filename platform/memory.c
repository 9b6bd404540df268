#include "platform/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/bits.h"
#include "platform/small_file.h"

// Longer paths and files are cut, and then mostly lead nowhere: no limit.
#define TEXT_BYTES 4096

struct text {
  size_t length;
  char chars[TEXT_BYTES];
};

static void append(struct text *text, const char *s, size_t length) {
  length = hak_min(length, TEXT_BYTES - 1 - text->length);
  memcpy(text->chars + text->length, s, length);
  text->length += length;
  text->chars[text->length] = '\0';
}

static void read_file(const char *path, struct text *content) {
  content->length = hak_small_file_read(path, content->chars, TEXT_BYTES);
}

// The number in the file, as far as it is one ("max" is none).
static size_t read_limit(const char *path) {
  struct text content;
  read_file(path, &content);
  const char *c = content.chars;
  size_t value = 0;
  for (; *c >= '0' && *c <= '9'; ++c) {
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *c - '0', &value)) return SIZE_MAX;
  }
  return c == content.chars ? SIZE_MAX : value;
}

// The lowest limit that the files called `name` state in `mount`/`group` and the directories above, to `mount` itself.
static size_t lowest_limit(const char *root, const char *mount, const char *group, size_t group_length,
                           const char *name) {
  size_t lowest = SIZE_MAX;
  for (;;) {
    struct text path = {.length = 0};
    append(&path, root, strlen(root));
    append(&path, mount, strlen(mount));
    append(&path, group, group_length);
    append(&path, name, strlen(name));
    lowest = hak_min(lowest, read_limit(path.chars));
    if (group_length == 0) return lowest;
    while (group[--group_length] != '/') {
    }
  }
}

// Whether the comma-separated list of `length` characters has the entry "memory".
static bool has_memory(const char *list, size_t length) {
  static const char name[] = "memory";
  const size_t name_length = sizeof name - 1;
  for (const char *end = list + length; list < end; ++list) {
    size_t entry_length = strcspn(list, ",:");
    if (entry_length == name_length && memcmp(list, name, name_length) == 0) return true;
    list += entry_length;
  }
  return false;
}

// A line of /proc/self/cgroup: "number:controllers:/group". Version 2 has no controllers there.
static size_t limit_of_line(const char *root, const char *line, size_t length) {
  const char *controllers = memchr(line, ':', length);
  if (controllers == NULL) return SIZE_MAX;
  ++controllers;
  const char *group = memchr(controllers, ':', (size_t)(line + length - controllers));
  if (group == NULL || group[1] != '/') return SIZE_MAX;
  size_t controllers_length = (size_t)(group - controllers);
  ++group;
  size_t group_length = (size_t)(line + length - group);
  // A group outside of the process's namespace begins with "/..", and none of its files can be seen.
  if (group_length == 1 || strncmp(group, "/..", 3) == 0) group_length = 0;
  if (controllers_length == 0) {
    return hak_min(lowest_limit(root, "/sys/fs/cgroup", group, group_length, "/memory.max"),
                   lowest_limit(root, "/sys/fs/cgroup/unified", group, group_length, "/memory.max"));
  }
  if (!has_memory(controllers, controllers_length)) return SIZE_MAX;
  return lowest_limit(root, "/sys/fs/cgroup/memory", group, group_length, "/memory.limit_in_bytes");
}

static size_t machine_bytes(void) {
  struct sysinfo info;
  return sysinfo(&info) == 0 ? (size_t)info.totalram * info.mem_unit : SIZE_MAX;
}

size_t hak_memory_bytes(const char *root) {
  int saved_errno = errno;
  size_t bytes = machine_bytes();
  struct text path = {.length = 0};
  struct text groups;
  append(&path, root, strlen(root));
  append(&path, "/proc/self/cgroup", strlen("/proc/self/cgroup"));
  read_file(path.chars, &groups);
  for (const char *line = groups.chars; *line != '\0';) {
    size_t length = strcspn(line, "\n");
    bytes = hak_min(bytes, limit_of_line(root, line, length));
    line += length + (line[length] == '\n');
  }
  errno = saved_errno;
  return bytes;
}

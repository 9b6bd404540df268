// Holds a million blocks of mixed sizes, made and partly replaced in random order. Prints the number of mappings that
// the process has then.
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const char *hak_owner(const void *p) __attribute__((weak));

enum { BLOCKS = 1000000 };

static void *blocks[BLOCKS];

static unsigned long state = 1;

static size_t below(size_t limit) {
  state = state * 6364136223846793005ul + 1442695040888963407ul;
  return (size_t)(state >> 33) % limit;
}

// Of a thousand blocks about 950 are small, 49 of up to 16 KiB, one larger, and one of these in ten a Huge one.
static size_t some_size(void) {
  size_t kind = below(10000);
  if (kind < 9500) return 1 + below(500);
  if (kind < 9990) return 1 + below(16384);
  return kind < 9999 ? 1 + below(1000000) : 2000000 + below(3000000);
}

static int count_mappings(void) {
  char buffer[4096];
  int file = open("/proc/self/maps", O_RDONLY), lines = 0;
  for (ssize_t length; (length = read(file, buffer, sizeof buffer)) > 0;) {
    for (ssize_t i = 0; i < length; ++i) lines += buffer[i] == '\n';
  }
  close(file);
  return lines;
}

int main(void) {
  if (hak_owner == NULL) return 2;
  for (size_t i = 0; i < 3 * (size_t)BLOCKS; ++i) {
    size_t which = i < BLOCKS ? i : below(BLOCKS);
    free(blocks[which]);
    blocks[which] = malloc(some_size());
    if (blocks[which] == NULL) return 1;
  }
  printf("%d\n", count_mappings());
  return 0;
}

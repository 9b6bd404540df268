// Allocates until memory has run out, goes on for a while, frees everything and allocates again.
// Usage: exhaust SIZE LIMIT_MIB [FAILURES]. Prints "ok" if the allocator kept its promises.
#define _GNU_SOURCE  // posix_memalign
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char *hak_owner(const void *p) __attribute__((weak));

struct block {
  struct block *next;
};

// The address space in use, in bytes.
static size_t in_use(void) {
  size_t pages = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  if (statm == NULL || fscanf(statm, "%zu", &pages) != 1) exit(2);
  fclose(statm);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int fail(const char *what) {
  printf("%s\n", what);
  return 1;
}

// Fills the address space with blocks of `size` bytes, chained at *all. Returns their number.
static size_t exhaust(size_t size, struct block **all) {
  size_t count = 0;
  for (;;) {
    errno = 0;
    struct block *block = malloc(size);
    if (block == NULL) return count;
    if (hak_owner(block) == NULL) exit(fail("a block is not hakmem's"));
    memset(block, 0x5a, size < 64 ? size : 64);
    block->next = *all;
    *all = block;
    ++count;
  }
}

static void free_all(struct block *all) {
  while (all != NULL) {
    struct block *next = all->next;
    free(all);
    all = next;
  }
}

int main(int argc, char **argv) {
  if (argc < 3 || hak_owner == NULL) return 2;
  size_t size = strtoull(argv[1], NULL, 10);
  size_t limit = strtoull(argv[2], NULL, 10) << 20;
  int failures = argc > 3 ? atoi(argv[3]) : 1;
  printf(" ");  // stdout has its buffer before memory runs out

  rlim_t space = in_use() + limit;
  if (setrlimit(RLIMIT_AS, &(struct rlimit){space, space}) != 0) return 2;

  struct block *all = NULL;
  size_t first = exhaust(size, &all);
  if (errno != ENOMEM) return fail("a refused malloc did not set ENOMEM");
  if (first * size < limit / 4) return fail("memory ran out when three quarters of it were free");
  if (first * size > limit + (16u << 20)) return fail("more than the limit was handed out");
  for (int i = 1; i < failures; ++i) {
    errno = 0;
    if (malloc(size) != NULL) return fail("malloc succeeded after memory had run out");
    if (errno != ENOMEM) return fail("a later refused malloc did not set ENOMEM");
  }
  // Other ways to ask, and the block that cannot grow stays.
  errno = 0;
  if (calloc(1, limit) != NULL || errno != ENOMEM) return fail("calloc beyond the limit");
  errno = 0;
  if (realloc(all, limit) != NULL || errno != ENOMEM) return fail("realloc beyond the limit");
  // A block may become smaller without memory for the move, which is a success.
  struct block *small = NULL;
  (void)exhaust(sizeof(struct block), &small);
  struct block *rest = all->next;
  errno = 0;
  void *smaller = realloc(all, 1);
  if (smaller == NULL || errno != 0) return fail("realloc to a smaller size");
  free(smaller);
  free_all(small);
  all = rest;
  void *aligned = NULL;
  if (posix_memalign(&aligned, 64, limit) != ENOMEM) return fail("posix_memalign beyond the limit");

  free_all(all);
  all = NULL;
  size_t second = exhaust(size, &all);
  if (second < first - first / 10) return fail("after everything was freed, less than nine tenths could be had again");
  free_all(all);

  // The memory is there for other tiers as well.
  static const size_t sizes[] = {16, 5000, 100000, 3000000};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
    void *p = malloc(sizes[i]);
    if (p == NULL) {
      printf("%zu bytes are refused after everything was freed\n", sizes[i]);
      return 1;
    }
    free(p);
  }
  puts("ok");
  return 0;
}

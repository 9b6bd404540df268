// Preloaded together with libfailing_os.so: the same work over and over, in which the N-th mmap, mremap or madvise
// fails, for every N. A request that fails must say ENOMEM, harm nothing and lose nothing. Prints the largest N.
//
// Usage: failing_calls N_CALLS, the number of calls in a row that fail each time.
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

long failing_os_fail_at(long call, long n_calls) __attribute__((weak));
const char *hak_owner(const void *p) __attribute__((weak));

enum { BLOCKS = 100, STEPS = 1200 };

static struct {
  char *start;
  size_t size;
} blocks[BLOCKS];

static const size_t sizes[] = {16, 200, 1000, 3000, 9000, 32000, 40000, 100000, 300000, 2200000};

_Noreturn static void stop(const char *what, long call) {
  failing_os_fail_at(0, 0);
  printf("%s, call %ld failing\n", what, call);
  exit(1);
}

static unsigned long state;

static size_t below(size_t limit) {
  state = state * 6364136223846793005ul + 1442695040888963407ul;
  return (size_t)(state >> 33) % limit;
}

static void mark(size_t i, long call) {
  char *p = blocks[i].start;
  if (p == NULL) {
    if (errno != ENOMEM) stop("a refusal without ENOMEM", call);
    return;
  }
  p[0] = p[blocks[i].size - 1] = (char)i;
}

static void check(size_t i, long call) {
  const char *p = blocks[i].start;
  if (p != NULL && (p[0] != (char)i || p[blocks[i].size - 1] != (char)i)) stop("a block was overwritten", call);
}

// The same for every call; returns how many requests were refused.
static unsigned work(long call) {
  unsigned n_refused = 0;
  state = 12345;
  for (size_t step = 0; step < STEPS; ++step) {
    size_t i = below(BLOCKS);
    size_t size = sizes[below(sizeof sizes / sizeof sizes[0])] + below(100);
    check(i, call);
    errno = 0;
    if (blocks[i].start == NULL) {
      blocks[i].size = size;
      blocks[i].start = below(2) == 0 ? malloc(size) : calloc(1, size);
      n_refused += blocks[i].start == NULL;
      mark(i, call);
    } else if (below(2) == 0) {
      free(blocks[i].start);
      blocks[i].start = NULL;
    } else {
      char *moved = realloc(blocks[i].start, size);
      if (moved == NULL) {
        ++n_refused;
        if (errno != ENOMEM) stop("a refusal of realloc without ENOMEM", call);
        check(i, call);
      } else {
        if (moved[0] != (char)i) stop("realloc lost content", call);
        blocks[i].start = moved;
        blocks[i].size = size;
        mark(i, call);
      }
    }
    if (step % 12 == 11) malloc_trim(0);
  }
  return n_refused;
}

static int every_size_is_served(void) {
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
    void *p = malloc(sizes[i]);
    if (p == NULL) return 0;
    free(p);
  }
  return 1;
}

static void free_all(long call) {
  for (size_t i = 0; i < BLOCKS; ++i) {
    check(i, call);
    free(blocks[i].start);
    blocks[i].start = NULL;
  }
  malloc_trim(0);
}

static size_t held(void) {
  struct mallinfo2 info = mallinfo2();
  return info.arena + info.hblkhd;
}

int main(int argc, char **argv) {
  if (argc != 2 || failing_os_fail_at == NULL || hak_owner == NULL) return 2;
  long n_calls = atol(argv[1]);
  printf(" ");  // stdout has its buffer
  (void)work(0);
  free_all(0);
  size_t before = held();
  unsigned n_refused = 0;
  long call = 0, made;
  do {
    failing_os_fail_at(++call, n_calls);
    n_refused += work(call);
    made = failing_os_fail_at(0, 0);
    if (!every_size_is_served()) stop("a refusal after the system works again", call);
    free_all(call);
    // What a thread and its caches keep may be distributed differently, but not add up.
    if (held() > before + ((size_t)16 << 20)) stop("memory is lost", call);
  } while (made >= call);
  printf("%ld calls, %s\n", call, n_refused == 0 ? "never refused" : "some refused");
  return 0;
}

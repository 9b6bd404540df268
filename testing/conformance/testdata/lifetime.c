// Allocates before main and frees after it: in an IFUNC resolver, a function of .preinit_array, constructors, main,
// atexit handlers and destructors. The last destructor writes "ok". hak_owner is weak: preloaded or linked.
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *hak_owner(const void *p) __attribute__((weak));

enum { BLOCKS = 64, MOMENTS = 6 };

// What was allocated at each moment before main, and what main left.
static char *kept[MOMENTS][BLOCKS];

static const size_t sizes[BLOCKS] = {1, 16, 100, 1000, 3000, 30000, 100000, 1000000, 3000000};

static size_t size_of(size_t i) { return sizes[i] != 0 ? sizes[i] : 40 * i; }

_Noreturn static void stop(const char *what) {
  ssize_t written = write(STDOUT_FILENO, what, strlen(what));
  _exit(written < 0 ? 2 : 1);
}

static void allocate(size_t moment) {
  for (size_t i = 0; i < BLOCKS; ++i) {
    char *p = malloc(size_of(i) / 2 + 1);
    kept[moment][i] = p == NULL ? NULL : realloc(p, size_of(i));
    if (kept[moment][i] == NULL) stop("out of memory\n");
    memset(kept[moment][i], (int)(moment + i), size_of(i));
    free(calloc(2, size_of(i)));
  }
}

static void check_and_free(size_t moment, size_t first, size_t step) {
  for (size_t i = first; i < BLOCKS; i += step) {
    const char *p = kept[moment][i];
    char expected = (char)(moment + i);
    if (p == NULL || p[0] != expected || p[size_of(i) - 1] != expected) stop("a block has changed\n");
    if (hak_owner == NULL || hak_owner(p) == NULL) stop("a block is not hakmem's\n");
    free(kept[moment][i]);
    kept[moment][i] = NULL;
  }
}

#ifdef WITH_IFUNC
static int answer_of_resolved(void) { return 42; }
__attribute__((used)) static int (*resolve(void))(void) {
  allocate(0);
  return answer_of_resolved;
}
int resolved(void) __attribute__((ifunc("resolve")));
#else
static int resolved(void) {
  allocate(0);
  return 42;
}
#endif

static void preinit(void) { allocate(1); }
__attribute__((section(".preinit_array"), used)) static void (*const preinit_entry)(void) = preinit;

__attribute__((constructor(101))) static void construct_first(void) { allocate(2); }
__attribute__((constructor)) static void construct(void) {
  allocate(3);
  check_and_free(2, 0, 2);
}

// Runs after the atexit handlers, and after the other destructor.
__attribute__((destructor(101))) static void destruct_last(void) {
  allocate(5);
  check_and_free(5, 0, 1);
  check_and_free(3, 1, 2);
  if (write(STDOUT_FILENO, "ok\n", 3) != 3) _exit(2);
}
__attribute__((destructor)) static void destruct(void) { check_and_free(1, 1, 2); }

static void at_exit_first(void) {
  check_and_free(4, 0, 1);
  check_and_free(2, 1, 2);
}
static void at_exit_second(void) {
  check_and_free(0, 0, 1);
  check_and_free(1, 0, 2);
}

int main(void) {
  if (resolved() != 42) stop("the resolver\n");
  check_and_free(3, 0, 2);
  if (atexit(at_exit_second) != 0 || atexit(at_exit_first) != 0) return 2;
  allocate(4);
  return 0;
}

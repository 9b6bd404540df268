// A library that comes and goes: with a constructor and a destructor that allocate, thread-local memory too large for
// the static block, so that the loader allocates it, and threads of its own.
#define _XOPEN_SOURCE 700  // barriers
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, LOCAL_BYTES = 50000 };

static char *own;
static pthread_t threads[THREADS];
static pthread_barrier_t all_run;
static __thread char local[LOCAL_BYTES];

int guest_start(void);
int guest_stop(void);
char *guest_allocate(size_t size);
void guest_free(char *p);

__attribute__((constructor)) static void arrive(void) { own = calloc(1, 5000); }
__attribute__((destructor)) static void leave(void) { free(own); }

static void *run(void *local_of_starter) {
  memset(local, 1, sizeof local);
  char *p = malloc(100000);
  pthread_barrier_wait(&all_run);
  free(p);
  return local[LOCAL_BYTES - 1] == 1 && p != NULL ? local_of_starter : NULL;
}

int guest_start(void) {
  if (pthread_barrier_init(&all_run, NULL, THREADS) != 0) return 0;
  for (size_t i = 0; i < THREADS; ++i) {
    if (pthread_create(&threads[i], NULL, run, local) != 0) return 0;
  }
  return 1;
}

int guest_stop(void) {
  int all_well = 1;
  for (size_t i = 0; i < THREADS; ++i) {
    void *result = NULL;
    pthread_join(threads[i], &result);
    all_well &= result == local;
  }
  pthread_barrier_destroy(&all_run);
  return all_well && own != NULL;
}

char *guest_allocate(size_t size) {
  local[0] = 1;
  char *p = malloc(size);
  return p == NULL ? NULL : memset(p, 'g', size);
}

void guest_free(char *p) { free(p); }

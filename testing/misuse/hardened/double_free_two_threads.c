#include <pthread.h>
#include "testing/misuse/misuse.h"

static void *free_once(void *p) {
  free(p);
  return NULL;
}

int main(void) {
  char *p = block_of(48);
  expect("free", p, DOUBLE_FREE);
  pthread_t thread;
  if (pthread_create(&thread, NULL, free_once, p) != 0) return 2;
  pthread_join(thread, NULL);
  free(opaque(p));
  return 0;
}

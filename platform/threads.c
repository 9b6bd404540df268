#define _GNU_SOURCE  // syscall
#include "platform/threads.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#endif

#include "platform/small_file.h"

// Of /proc/self/stat: "pid (name) state ...", where the number of threads is so many words behind the state.
#define WORDS_TO_THREADS 17

bool hak_is_last_thread(void) {
  char stat[1024];
  (void)hak_small_file_read("/proc/self/stat", stat, sizeof stat);
  // The name may hold anything. The state is that of the main thread, which counts until the last one has ended.
  const char *word = strrchr(stat, ')');
  if (word == NULL) return true;
  if (strncmp(word, ") Z ", 4) != 0) return false;
  for (int i = 0; i <= WORDS_TO_THREADS && word != NULL; ++i) word = strchr(word + 1, ' ');
  return word != NULL && atoi(word) == 2;
}

bool hak_is_only_thread(void) {
#if __has_include(<sys/single_threaded.h>)
  return __libc_single_threaded != 0;
#else
  return false;
#endif
}

void hak_sleep_ns(uint64_t ns) {
  int saved_errno = errno;
  struct timespec time = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
  (void)syscall(SYS_nanosleep, &time, NULL);
  errno = saved_errno;
}

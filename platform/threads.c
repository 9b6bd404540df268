#include "platform/threads.h"

#include <stdlib.h>
#include <string.h>

#include "platform/small_file.h"

// Of /proc/self/stat: "pid (name) state ...", where the number of threads is so many words behind the state.
#define WORDS_TO_THREADS 17

bool hak_is_last_thread(void) {
  char stat[1024];
  (void)hak_small_file_read("/proc/self/stat", stat, sizeof stat);
  // The name may hold anything. The state is that of the main thread, which counts until the last one has ended.
  const char *word = strrchr(stat, ')');
  if (word == NULL || strncmp(word, ") Z ", 4) != 0) return false;
  for (int i = 0; i <= WORDS_TO_THREADS && word != NULL; ++i) word = strchr(word + 1, ' ');
  return word != NULL && atoi(word) == 2;
}

#include <unistd.h>
#include "testing/misuse/misuse.h"

int main(void) {
  // The very first call into the allocator, before it has set anything up.
  char local[32];
  char *p = opaque(local);
  char line[256];
  int length = snprintf(line, sizeof line, "[HAKMEM] FATAL: free(0x%lx): " FOREIGN "\n", (unsigned long)(uintptr_t)p);
  if (write(STDOUT_FILENO, line, (size_t)length) != length) return 2;
  free(p);
  return 0;
}

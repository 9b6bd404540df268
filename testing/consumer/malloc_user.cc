// A program that knows nothing of hakmem, but is linked with it: malloc and new are served by hakmem.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <string>
#include <thread>

#include "router/hakmem.h"

namespace {

bool IsOurs(const char *what, const void *p) {
  const char *owner = hak_owner(p);
  if (owner == nullptr) fprintf(stderr, "%s: %p is not hakmem's\n", what, p);
  return owner != nullptr;
}

bool Check() {
  bool is_ours = true;
  for (size_t size_bytes : {1, 1000, 30000, 1000000, 10000000}) {
    void *p = malloc(size_bytes);
    is_ours &= IsOurs("malloc", p);
    memset(p, 1, size_bytes);
    p = realloc(p, 2 * size_bytes);
    is_ours &= IsOurs("realloc", p);
    free(p);
  }
  std::unique_ptr<char[]> array(new char[5000]);
  is_ours &= IsOurs("new[]", array.get());
  std::string text(200, 'x');
  is_ours &= IsOurs("std::string", text.data());
  char *copy = strdup("allocated inside libc");
  is_ours &= IsOurs("strdup", copy);
  free(copy);
  return is_ours;
}

}  // namespace

int main() {
  bool is_ours_in_thread = false;
  std::thread thread([&] { is_ours_in_thread = Check(); });
  thread.join();
  return Check() && is_ours_in_thread ? 0 : 1;
}

// A C++ plugin that brings the C++ runtime into its host. Prints what became of requests that cannot be served.
#include <cstddef>
#include <cstdio>
#include <new>

namespace {
volatile size_t too_large = size_t{1} << 60;

void Throwing() { throw std::bad_alloc(); }
}  // namespace

extern "C" int plugin_run() {
  void *volatile p = nullptr;
  try {
    p = ::operator new(too_large);
  } catch (const std::bad_alloc &) {
    std::puts("new: bad_alloc");
  }
  std::set_new_handler(Throwing);
  p = ::operator new(too_large, std::nothrow);
  std::set_new_handler(nullptr);
  if (p == nullptr) std::puts("nothrow new: NULL");
  return 0;
}

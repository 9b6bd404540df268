// Calls operator new in a process without a C++ runtime, for a size that cannot be had.
#include <stddef.h>

void *operator_new(size_t size) __asm__("_Znwm") __attribute__((weak));

int main(void) {
  if (operator_new == NULL) return 2;
  void *p = operator_new((size_t)1 << 60);
  __asm__ volatile("" : "+r"(p));  // or the compiler leaves the call out
  return p == NULL;
}

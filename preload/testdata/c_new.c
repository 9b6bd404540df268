// Calls forms of operator new in a process without a C++ runtime, for a size that cannot be had.
#include <stddef.h>

void *operator_new(size_t size) __asm__("_Znwm") __attribute__((weak));
void *operator_new_aligned_nothrow(size_t size, size_t alignment,
                                   const void *tag) __asm__("_ZnwmSt11align_val_tRKSt9nothrow_t") __attribute__((weak));

int main(void) {
  if (operator_new == NULL || operator_new_aligned_nothrow == NULL) return 2;
  if (operator_new_aligned_nothrow((size_t)1 << 60, 64, "") != NULL) return 3;
  void *p = operator_new((size_t)1 << 60);
  __asm__ volatile("" : "+r"(p));  // or the compiler leaves the call out
  return p == NULL;
}

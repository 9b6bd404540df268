#include "platform/secret.h"

#include "platform/os.h"

HAK_HIDDEN struct hak_secret hak_secret;

void hak_secret_make(void) {
  if (hak_secret.multiplier != 0) return;
  uint64_t multiplier = hak_os_random() | 1;
  // Newton's iteration: an odd number is its own inverse modulo 8, and each step doubles the number of right bits.
  uint64_t inverse = multiplier;
  for (int bits = 3; bits < 64; bits *= 2) inverse *= 2 - multiplier * inverse;
  // Odd, as is then the lowest byte of what stands for an even value: the end of a string written over it always shows.
  hak_secret = (struct hak_secret){.key = hak_os_random() | 1, .multiplier = multiplier, .inverse = inverse};
}

// Words that only this process can make: for the hardened library, which keeps some in memory that the program may
// overwrite by mistake or malice.
//
// A word stands for a small value at an address. encode(value) = (value ^ address ^ key) * multiplier, modulo 2^64: a
// change of any bit of it changes, when it is decoded, the bits from there up, most of which are known to be zero.
#ifndef HAKMEM_PLATFORM_SECRET_H_
#define HAKMEM_PLATFORM_SECRET_H_

#include <stdint.h>

#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hak_secret {
  uint64_t key;
  uint64_t multiplier;  // odd
  uint64_t inverse;     // multiplier * inverse == 1
};

extern struct hak_secret hak_secret HAK_HIDDEN;

// Draws the process's secret, once: before the first word is encoded, and while there is one thread that may come here.
void hak_secret_make(void);

static inline uint64_t hak_secret_encode(uintptr_t address, uint64_t value) {
  return (value ^ address ^ hak_secret.key) * hak_secret.multiplier;
}

static inline uint64_t hak_secret_decode(uintptr_t address, uint64_t word) {
  return (word * hak_secret.inverse) ^ address ^ hak_secret.key;
}

// Bits that belong to the address, all of them as good as drawn.
static inline uint64_t hak_secret_hash(uintptr_t address) {
  uint64_t word = hak_secret_encode(address, 0);
  return (word ^ word >> 32) * hak_secret.multiplier;
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_SECRET_H_

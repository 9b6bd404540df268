// Arithmetic on sizes and bitmaps.
#ifndef HAKMEM_BASE_BITS_H_
#define HAKMEM_BASE_BITS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// `n` rounded up to a multiple of `unit`, a power of two. The caller makes sure that n + unit does not wrap.
static inline size_t hak_round_up(size_t n, size_t unit) { return (n + unit - 1) & ~(unit - 1); }

static inline size_t hak_round_down(size_t n, size_t unit) { return n & ~(unit - 1); }

static inline bool hak_is_power_of_two(size_t n) { return n != 0 && (n & (n - 1)) == 0; }

// The position of the highest set bit of `n`; n must not be 0.
static inline unsigned hak_log2_floor(size_t n) { return 63u ^ (unsigned)__builtin_clzl(n); }

// The largest power of two that divides `n`; n must not be 0.
static inline size_t hak_lowest_bit(size_t n) { return n & (~n + 1); }

// The number of set bits. Without the instruction, which not every processor has, the compiler's own is a call.
static inline unsigned hak_count_bits(uint32_t bits) {
  bits -= bits >> 1 & 0x55555555;
  bits = (bits & 0x33333333) + (bits >> 2 & 0x33333333);
  return ((bits + (bits >> 4)) & 0x0f0f0f0f) * 0x01010101 >> 24;
}

// The lowest run of set bits in `bits`, which must not be 0: its length; *first is the position of its lowest bit.
static inline size_t hak_lowest_run(uint32_t bits, size_t *first) {
  *first = (size_t)__builtin_ctz(bits);
  return (size_t)__builtin_ctzl(~((uint64_t)bits >> *first));
}

static inline size_t hak_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t hak_max(size_t a, size_t b) { return a > b ? a : b; }

#endif  // HAKMEM_BASE_BITS_H_

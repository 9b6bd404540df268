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
static inline unsigned hak_count_bits(uint64_t bits) {
  bits -= bits >> 1 & 0x5555555555555555;
  bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
  return (unsigned)(((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

// How many of the lowest bits are set, without a gap.
static inline size_t hak_count_low_bits(uint64_t bits) {
  return bits == UINT64_MAX ? 64 : (size_t)__builtin_ctzl(~bits);
}

// The lowest run of set bits in `bits`, which must not be 0: its length; *first is the position of its lowest bit.
static inline size_t hak_lowest_run(uint64_t bits, size_t *first) {
  *first = (size_t)__builtin_ctzl(bits);
  return hak_count_low_bits(bits >> *first);
}

// The `n` bits from `first` on; n may be 0.
static inline uint64_t hak_bits(size_t first, size_t n) { return n == 0 ? 0 : UINT64_MAX >> (64 - n) << first; }

static inline size_t hak_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t hak_max(size_t a, size_t b) { return a > b ? a : b; }

#endif  // HAKMEM_BASE_BITS_H_

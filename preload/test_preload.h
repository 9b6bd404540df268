// For the tests of the contract: sizes of every tier, and blocks that tell an overlap.
#ifndef HAKMEM_PRELOAD_TEST_PRELOAD_H_
#define HAKMEM_PRELOAD_TEST_PRELOAD_H_

#include <dlfcn.h>
#include <errno.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <stdint.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "preload/test_process.h"

namespace hak_test {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kGiB = 1024 * kMiB;
constexpr size_t kPtrdiffMax = PTRDIFF_MAX;

// On both sides of every tier border, and inside the tiers.
const std::vector<size_t> kSizes = {
    1,     8,         16,    17,         100,      1023,    1024,     1025,    5 * kKiB,
    32767, 32 * kKiB, 32769, 100 * kKiB, 1 * kMiB, 2097151, 2 * kMiB, 2097153, 5 * kMiB,
};

// One size of each tier.
const std::vector<size_t> kTierSizes = {64, 5 * kKiB, 100 * kKiB, 4 * kMiB};

// `n` as a value that the compiler cannot warn about.
inline size_t Unknown(size_t n) {
  asm volatile("" : "+r"(n));
  return n;
}

inline void Fill(void *p, size_t size, unsigned seed) {
  auto *bytes = static_cast<unsigned char *>(p);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<unsigned char>(seed + i * 31 + (i >> 8));
}

inline bool Holds(const void *p, size_t size, unsigned seed) {
  auto *bytes = static_cast<const unsigned char *>(p);
  for (size_t i = 0; i < size; ++i) {
    if (bytes[i] != static_cast<unsigned char>(seed + i * 31 + (i >> 8))) return false;
  }
  return true;
}

inline bool IsAligned(const void *p, size_t alignment) { return reinterpret_cast<uintptr_t>(p) % alignment == 0; }

// Whether the variable is set to 0: the test is also run with tiers switched off.
inline bool IsOff(const char *variable) {
  const char *value = getenv(variable);
  return value != nullptr && strcmp(value, "0") == 0;
}

inline std::string TierOf(size_t size) {
  if (hak_test::IsHardened()) size += 8;  // for the seal
  if (size <= 1024 && !IsOff("HAKMEM_TINY_USE_SUPERSLAB")) return "tiny";
  if (size <= 32 * kKiB) return "mid";
  return size < 2 * kMiB && !IsOff("HAKMEM_ACE_ENABLED") ? "ace" : "huge";
}

// All bytes in SuperSlabs and Huge mappings that the program has not given back.
inline size_t InUse() {
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

// A function that the headers may not declare, or that glibc keeps for old programs only.
template <typename F>
F *Function(const char *name) {
  void *function = dlsym(RTLD_DEFAULT, name);
  if (function == nullptr) abort();
  return reinterpret_cast<F *>(function);
}

// 64 MiB of blocks of every size pass through `give_back`, and nothing is left.
template <typename F>
void ExpectFrees(F give_back) {
  give_back(nullptr, 0);
  for (size_t size : kSizes) {
    const size_t before = InUse();
    for (size_t bytes = 0; bytes < 64 * kMiB; bytes += std::max(size, 4 * kKiB)) {
      void *p = Opaque(malloc(size));
      errno = 77;
      give_back(p, size);
      ASSERT_EQ(errno, 77) << size;
    }
    EXPECT_LE(InUse(), before + 4 * kMiB) << size;
  }
}

}  // namespace hak_test

#endif  // HAKMEM_PRELOAD_TEST_PRELOAD_H_

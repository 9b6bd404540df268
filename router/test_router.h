// For the tests of the allocator as a whole: sizes of every tier, and blocks that tell an overlap.
#ifndef HAKMEM_ROUTER_TEST_ROUTER_H_
#define HAKMEM_ROUTER_TEST_ROUTER_H_

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "base/compiler.h"

namespace hak_test {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kGiB = 1024 * kMiB;

// Sizes at and around every border between tiers, and some within each.
const size_t kSizes[] = {0,           1,    16,       17,           100,           1023,         1024,
                         1025,        1152, 1153,     5000,         32 * kKiB - 1, 32 * kKiB,    32 * kKiB + 1,
                         100 * kKiB,  kMiB, kMiB + 1, 2 * kMiB - 1, 2 * kMiB,      2 * kMiB + 1, 3 * kMiB,
                         8 * kMiB + 5};

inline const char *TierOf(size_t size) {
  if (HAK_CONFIG_HARDENED) size += 8;  // for the seal
  if (size <= 1024) return "tiny";
  if (size <= 32 * kKiB) return "mid";
  return size < 2 * kMiB ? "ace" : "huge";
}

// A content that tells every byte from its neighbours and every block from the others.
inline unsigned char ByteAt(size_t i, size_t seed) { return static_cast<unsigned char>(i * 31 + i / 251 + seed); }

// Every byte of the first pages, and enough of each cache line behind them.
template <typename F>
void ForEachByte(size_t bytes, F f) {
  for (size_t i = 0; i < bytes; i += i < 8192 ? 1 : 61) f(i);
}

inline void Fill(void *p, size_t bytes, size_t seed) {
  ForEachByte(bytes, [=](size_t i) { static_cast<unsigned char *>(p)[i] = ByteAt(i, seed); });
}

inline bool IsFilled(const void *p, size_t bytes, size_t seed) {
  bool same = true;
  ForEachByte(bytes, [&](size_t i) { same &= static_cast<const unsigned char *>(p)[i] == ByteAt(i, seed); });
  return same;
}

inline bool IsZero(const void *p, size_t bytes) {
  const auto *b = static_cast<const unsigned char *>(p);
  return bytes == 0 || (b[0] == 0 && memcmp(b, b + 1, bytes - 1) == 0);
}

// Runs `f` in a child process, which is to return true.
template <typename F>
void ExpectInChild(F f) {
  pid_t child = fork();
  ASSERT_NE(child, -1);
  if (child == 0) _exit(f() ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace hak_test

#endif  // HAKMEM_ROUTER_TEST_ROUTER_H_

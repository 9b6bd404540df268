#include "testing/oracle/content.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace hak_oracle {
namespace {

constexpr size_t kDenseBytes = 32 * 1024;
constexpr size_t kSparseFrom = 1024 * 1024;
constexpr size_t kSparseBytes = 64 * 1024;
constexpr size_t kPageBytes = 4096;
constexpr size_t kStretchBytes = 64;

// Content is copied from and compared with a tape of random bytes, which is as fast as memory; each page of each block
// starts at a place of its own.
constexpr size_t kTapePlaces = 64 * 1024;

const unsigned char *Tape() {
  static const std::vector<unsigned char> tape = [] {
    std::mt19937 random(1);
    std::vector<unsigned char> bytes(kTapePlaces + kPageBytes);
    for (unsigned char &byte : bytes) byte = static_cast<unsigned char>(random());
    return bytes;
  }();
  return tape.data();
}

// Spreads `n` over all bits (the finaliser of splitmix64).
uint64_t Mix(uint64_t n) {
  n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9;
  n = (n ^ n >> 27) * 0x94d049bb133111eb;
  return n ^ n >> 31;
}

size_t MismatchAt(const unsigned char *a, const unsigned char *b) {
  size_t i = 0;
  while (a[i] == b[i]) ++i;
  return i;
}

}  // namespace

Content::Content(uint64_t seed, uint64_t block_number) : number_(Mix(seed + Mix(block_number))) {}

const unsigned char *Content::Expected(size_t offset) const {
  return Tape() + Mix(number_ + offset / kPageBytes) % kTapePlaces + offset % kPageBytes;
}

template <typename Visit>
void Content::ForEachStretch(size_t bytes, Visit visit) const {
  const size_t dense = std::min(bytes, kDenseBytes);
  for (size_t offset = 0; offset < dense; offset += kPageBytes) {
    if (!visit(offset, std::min(kPageBytes, dense - offset))) return;
  }
  if (bytes <= kDenseBytes) return;
  size_t part_bytes = kPageBytes;
  for (size_t part = kDenseBytes;; part += part_bytes) {
    if (part >= kSparseFrom) part_bytes = kSparseBytes;
    if (part + part_bytes > bytes) break;
    const size_t place = Mix(number_ ^ part) % (part_bytes / kStretchBytes) * kStretchBytes;
    if (!visit(part + place, kStretchBytes)) return;
  }
  // The last bytes of a page that need not be whole.
  const size_t length = std::min(kStretchBytes, (bytes - 1) % kPageBytes + 1);
  visit(bytes - length, length);
}

void Content::Fill(void *p, size_t bytes) const {
  auto *start = static_cast<unsigned char *>(p);
  ForEachStretch(bytes, [&](size_t offset, size_t length) {
    std::memcpy(start + offset, Expected(offset), length);
    return true;
  });
}

absl::optional<size_t> Content::FirstDifference(const void *p, size_t bytes, size_t prefix) const {
  const auto *start = static_cast<const unsigned char *>(p);
  absl::optional<size_t> found;
  ForEachStretch(bytes, [&](size_t offset, size_t length) {
    if (offset >= prefix) return true;  // the stretches ascend but for the last
    length = std::min(length, prefix - offset);
    const unsigned char *expected = Expected(offset);
    if (std::memcmp(start + offset, expected, length) == 0) return true;
    found = offset + MismatchAt(start + offset, expected);
    return false;
  });
  return found;
}

absl::optional<size_t> FirstNonZero(const void *p, size_t bytes) {
  static const unsigned char zeroes[kPageBytes] = {};
  const auto *start = static_cast<const unsigned char *>(p);
  for (size_t offset = 0; offset < bytes; offset += kPageBytes) {
    const size_t length = std::min(kPageBytes, bytes - offset);
    if (std::memcmp(start + offset, zeroes, length) != 0) return offset + MismatchAt(start + offset, zeroes);
  }
  return absl::nullopt;
}

}  // namespace hak_oracle

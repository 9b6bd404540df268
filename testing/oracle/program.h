// Programs: sequences of operations on an allocator, decoded from words of 8 bytes. The words come from a seed (tests,
// the soak) or from a fuzzer. Every word is an operation, and every operation makes sense in every state.
#ifndef HAKMEM_TESTING_ORACLE_PROGRAM_H_
#define HAKMEM_TESTING_ORACLE_PROGRAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace hak_oracle {

// What is done to a slot, which is empty or has a block, or to the thread.
enum class Action : uint8_t {
  kMalloc,     // frees the slot's block if it has one, and allocates
  kCalloc,     // likewise, zeroed
  kResize,     // nothing if the slot is empty, as the next two
  kCheck,      // looks at the block
  kTrim,       // by the thread
  kWait,       // lets `size` milliseconds pass
  kEndThread,  // the thread ends; its blocks stay
  kFree,
};
constexpr size_t kActions = 8;

struct Operation {
  Action action;
  uint8_t thread;
  uint16_t slot;
  size_t size;
  size_t alignment;
};

using Program = std::vector<Operation>;

// "thread 1: resize slot 7 to 4097 bytes"
std::string ToString(const Operation &operation);

struct SizeRange {
  unsigned weight;
  size_t min, max;
};

// What the operations of a program are like.
struct Profile {
  size_t n_threads;  // 1 to 16
  size_t n_slots;    // at most 65536, a multiple of n_threads
  std::vector<SizeRange> sizes;
  size_t max_alignment;
  std::array<unsigned, kActions> weights;  // in the order of Action
};

// The operation that a word stands for:
//
//    7           6  5        4       3  2      1        0
//   +-----------+----------+-------+---------+--------+--------+
//   | alignment | place in | size  |  slot   | thread | action |
//   |           | range    | range |         |        |        |
//   +-----------+----------+-------+---------+--------+--------+
//
// A byte picks the action, or the size range, in proportion to its weights. Bits 0 to 3 of `thread` are the thread. The
// slot is one of its own if bits 6 and 7 are not 0, else one of all threads': so blocks change hands. Where bits 4 and
// 5 are not 0, trim, wait and end are but a check, since they should be rare. An alignment below 192 is none; above, it
// is one of the powers of two from 16 to the largest.
Operation DecodeOperation(uint64_t word, const Profile &profile);

// Decodes bytes as little-endian words; what is left at the end is not used.
Program DecodeProgram(absl::Span<const uint8_t> bytes, const Profile &profile);

// Random words. Their stretches differ: some fill slots and some empty them, some use all sizes and some one only.
std::vector<uint64_t> RandomWords(uint64_t seed, size_t n_words);

// The program that such words are.
Program RandomProgram(uint64_t seed, size_t n_operations, const Profile &profile);

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_PROGRAM_H_

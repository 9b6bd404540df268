#include "testing/oracle/program.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"

namespace hak_oracle {
namespace {

constexpr unsigned kAlignedFrom = 192;
constexpr size_t kMinAlignment = 16;

unsigned ByteOf(uint64_t word, unsigned index) { return static_cast<unsigned>(word >> (8 * index) & 0xff); }

// The item that `byte`, 0 to 255, picks out of items with the given weights.
template <typename Items, typename WeightOf>
size_t Pick(unsigned byte, const Items &items, WeightOf weight_of) {
  unsigned total = 0;
  for (const auto &item : items) total += weight_of(item);
  unsigned at = byte * total / 256;
  size_t index = 0;
  while (at >= weight_of(items[index])) at -= weight_of(items[index++]);
  return index;
}

size_t DecodeSize(uint64_t word, const Profile &profile) {
  const SizeRange &range =
      profile.sizes[Pick(ByteOf(word, 4), profile.sizes, [](const SizeRange &r) { return r.weight; })];
  const uint64_t place = word >> 40 & 0xffff;
  return range.min + place * (range.max - range.min + 1) / 65536;
}

size_t DecodeAlignment(uint64_t word, const Profile &profile) {
  const unsigned byte = ByteOf(word, 7);
  if (byte < kAlignedFrom) return kMinAlignment;
  size_t n_alignments = 1;
  while (kMinAlignment << n_alignments <= profile.max_alignment) ++n_alignments;
  return kMinAlignment << byte % n_alignments;
}

bool IsRare(Action action) {
  return action == Action::kTrim || action == Action::kWait || action == Action::kEndThread;
}

// Makes random words, in stretches that have something in common.
class WordGenerator {
 public:
  WordGenerator(uint64_t seed, size_t n_words) : random_(seed), longest_stretch_(n_words / 8 + 1) {}

  uint64_t Next() {
    if (left_ == 0) BeginStretch();
    if (burst_ == 0) BeginBurst();
    --left_;
    --burst_;
    uint64_t word = random_();
    word = (word & ~size_mask_) | (size_bits_ & size_mask_);
    word = (word & ~uint64_t{0x0f00}) | thread_bits_;
    if (calm_) word |= 0x1000;
    // Malloc has the lowest bytes and free the highest.
    const unsigned action = ByteOf(word, 0);
    if (mood_ == kFilling) return (word & ~uint64_t{0xff}) | action * 13 / 16;
    if (mood_ == kEmptying) return (word & ~uint64_t{0xff}) | (48 + action * 13 / 16);
    return word;
  }

 private:
  enum Mood { kMixed, kFilling, kEmptying, kMoods };

  void BeginStretch() {
    left_ = 1 + random_() % longest_stretch_;
    mood_ = static_cast<Mood>(random_() % kMoods);
    calm_ = random_() % 2 == 0;
    size_bits_ = random_();
    // All sizes, those of one range, or one size.
    static constexpr uint64_t kMasks[] = {0, 0x000000ff00000000, 0x00ffffff00000000};
    size_mask_ = kMasks[random_() % 3];
  }

  // A thread does several things before it is another's turn.
  void BeginBurst() {
    burst_ = 1 + random_() % 64;
    thread_bits_ = random_() & 0x0f00;
  }

  std::mt19937_64 random_;
  const size_t longest_stretch_;
  size_t left_ = 0;
  size_t burst_ = 0;
  Mood mood_ = kMixed;
  bool calm_ = false;  // no rare actions
  uint64_t size_bits_ = 0;
  uint64_t size_mask_ = 0;
  uint64_t thread_bits_ = 0;
};

}  // namespace

std::string ToString(const Operation &operation) {
  const std::string thread = absl::StrCat("thread ", operation.thread, ": ");
  const std::string slot = absl::StrCat(" slot ", operation.slot);
  const std::string size = absl::StrCat(operation.size, " bytes");
  switch (operation.action) {
    case Action::kMalloc:
      return absl::StrCat(thread, "malloc", slot, " of ", size, " aligned to ", operation.alignment);
    case Action::kCalloc:
      return absl::StrCat(thread, "calloc", slot, " of ", size);
    case Action::kResize:
      return absl::StrCat(thread, "resize", slot, " to ", size);
    case Action::kCheck:
      return absl::StrCat(thread, "check", slot);
    case Action::kTrim:
      return absl::StrCat(thread, "trim to ", size);
    case Action::kWait:
      return absl::StrCat(thread, "wait ", operation.size, " ms");
    case Action::kEndThread:
      return absl::StrCat(thread, "end");
    case Action::kFree:
      return absl::StrCat(thread, "free", slot);
  }
  return "none";
}

Operation DecodeOperation(uint64_t word, const Profile &profile) {
  Operation operation = {};
  operation.action =
      static_cast<Action>(Pick(ByteOf(word, 0), profile.weights, [](unsigned weight) { return weight; }));
  const unsigned thread = ByteOf(word, 1);
  if (IsRare(operation.action) && (thread & 0x30) != 0) operation.action = Action::kCheck;
  operation.thread = static_cast<uint8_t>((thread & 0xf) % profile.n_threads);
  const size_t slot = word >> 16 & 0xffff;
  const bool own = thread >> 6 != 0;
  const size_t n_own = profile.n_slots / profile.n_threads;
  operation.slot = static_cast<uint16_t>(own ? operation.thread * n_own + slot % n_own : slot % profile.n_slots);
  operation.size = operation.action == Action::kWait ? (word >> 40 & 0x7ff) : DecodeSize(word, profile);
  operation.alignment = DecodeAlignment(word, profile);
  return operation;
}

Program DecodeProgram(absl::Span<const uint8_t> bytes, const Profile &profile) {
  Program program;
  for (; bytes.size() >= sizeof(uint64_t); bytes.remove_prefix(sizeof(uint64_t))) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), sizeof word);
    program.push_back(DecodeOperation(word, profile));
  }
  return program;
}

std::vector<uint64_t> RandomWords(uint64_t seed, size_t n_words) {
  WordGenerator generator(seed, n_words);
  std::vector<uint64_t> words(n_words);
  for (uint64_t &word : words) word = generator.Next();
  return words;
}

Program RandomProgram(uint64_t seed, size_t n_operations, const Profile &profile) {
  Program program;
  program.reserve(n_operations);
  for (uint64_t word : RandomWords(seed, n_operations)) program.push_back(DecodeOperation(word, profile));
  return program;
}

}  // namespace hak_oracle

// That the oracle sees what an allocator may do wrong, and nothing where it does all right.
#include "testing/oracle/oracle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "testing/oracle/content.h"
#include "testing/oracle/failure.h"
#include "testing/oracle/program.h"
#include "testing/oracle/shadow_heap.h"

namespace hak_oracle {
namespace {

enum class Fault {
  kNone,
  kOverlap,         // a live block is handed out again
  kForeign,         // a block that the allocator does not know
  kMisaligned,      // 16 bytes beside the alignment
  kTooSmall,        // a byte less than asked for
  kNotZero,         // the last byte that calloc promises
  kResizeLosesEnd,  // the last byte that should be kept
  kScribble,        // into the middle of another live block, on free
  kSizeChanges,     // of a live block
  kRefuses,
  kKeepsMemory,  // after all was freed
};

// Steps of a program before the fault.
constexpr int kStepsWithoutFault = 300;

// libc's malloc, with one fault. Its threads are all the same.
class FaultyAllocator : public Allocator {
 public:
  explicit FaultyAllocator(Fault fault) : fault_(fault) {}
  ~FaultyAllocator() override {
    for (void *p : garbage_) std::free(p);
  }

  std::unique_ptr<AllocatorThread> StartThread() override;

  size_t min_alignment() const override { return 16; }
  bool always_resizes() const override { return true; }
  bool Owns(const void *p) const override { return fault_ != Fault::kForeign || sizes_.contains(p); }
  void CheckNothingHeld() override {
    if (fault_ == Fault::kKeepsMemory) Fail("memory is kept");
  }

  void *Malloc(size_t size, size_t alignment) {
    if (Now(Fault::kRefuses)) return nullptr;
    if (Now(Fault::kOverlap) && alignment == 16) {
      for (const auto &[live, live_size] : sizes_) {
        if (live_size >= size) return const_cast<void *>(live);
      }
    }
    char *p = Make(size, alignment);
    if (Now(Fault::kMisaligned)) p += 16;
    if (Now(Fault::kForeign)) {
      sizes_.erase(p);
      return p;
    }
    sizes_[p] = Now(Fault::kTooSmall) && size != 0 ? size - 1 : size;
    return p;
  }

  void *Calloc(size_t size) {
    char *p = Make(size, 16);
    std::memset(p, 0, size);
    if (Now(Fault::kNotZero) && size != 0) p[size - 1] = 1;
    return p;
  }

  void *Resize(void *old, size_t size) {
    const size_t kept = std::min(size, sizes_[old]);
    char *p = Make(size, 16);
    std::memcpy(p, old, kept);
    if (Now(Fault::kResizeLosesEnd) && kept != 0) p[kept - 1] ^= 1;
    Free(old);
    return p;
  }

  void Free(void *p) {
    sizes_.erase(p);
    garbage_.push_back(p);
    if (Now(Fault::kScribble) && !sizes_.empty()) {
      const auto &[victim, size] = *sizes_.begin();
      if (size != 0) const_cast<char *>(static_cast<const char *>(victim))[size / 2] ^= 1;
    }
  }

  size_t UsableSize(const void *p) {
    size_t &size = sizes_[p];
    if (Now(Fault::kSizeChanges)) ++size;
    return size;
  }

 private:
  bool Now(Fault fault) { return fault == fault_ && ++n_steps_ > kStepsWithoutFault; }

  // With room for what a fault moves.
  char *Make(size_t size, size_t alignment) {
    auto *p = static_cast<char *>(std::aligned_alloc(alignment, (size + 2 * alignment) / alignment * alignment));
    sizes_[p] = size;
    return p;
  }

  const Fault fault_;
  int n_steps_ = 0;
  absl::flat_hash_map<const void *, size_t> sizes_;  // of live blocks
  std::vector<void *> garbage_;                      // freed at the end, so that a fault does no harm to libc's heap
};

class FaultyThread : public AllocatorThread {
 public:
  explicit FaultyThread(FaultyAllocator *allocator) : allocator_(allocator) {}

  void *Malloc(size_t size, size_t alignment) override { return allocator_->Malloc(size, alignment); }
  void *Calloc(size_t size, size_t *zero_bytes) override {
    *zero_bytes = size;
    return allocator_->Calloc(size);
  }
  void *Resize(void *p, size_t size) override { return allocator_->Resize(p, size); }
  void Free(void *p) override { allocator_->Free(p); }
  size_t UsableSize(const void *p) override { return allocator_->UsableSize(p); }
  void Trim(size_t) override {}
  void Wait(uint64_t) override {}

 private:
  FaultyAllocator *const allocator_;
};

std::unique_ptr<AllocatorThread> FaultyAllocator::StartThread() { return std::make_unique<FaultyThread>(this); }

Profile TestProfile() { return {2, 64, {{1, 0, 200}, {1, 5000, 100000}}, 4096, {{70, 20, 30, 20, 4, 4, 4, 60}}}; }

void RunWith(Fault fault) {
  FaultyAllocator allocator(fault);
  RunRandomProgram(&allocator, TestProfile(), 1, 3000, &Oracle::RunInTurn);
}

TEST(Oracle, FindsNothingWhereNothingIsWrong) { RunWith(Fault::kNone); }

struct Finding {
  Fault fault;
  const char *message;
};

class OracleDeathTest : public testing::TestWithParam<Finding> {};

TEST_P(OracleDeathTest, FindsWhatIsWrongAndSaysSo) { EXPECT_DEATH(RunWith(GetParam().fault), GetParam().message); }

INSTANTIATE_TEST_SUITE_P(Every, OracleDeathTest,
                         testing::Values(Finding{Fault::kOverlap, "block .* overlaps block"},
                                         Finding{Fault::kMisaligned, "operation .* malloc slot .* is not aligned to"},
                                         Finding{Fault::kForeign, "belongs to another allocator"},
                                         Finding{Fault::kTooSmall, "usable size too small"},
                                         Finding{Fault::kNotZero, "calloc slot .* is not zero"},
                                         Finding{Fault::kResizeLosesEnd, "resize slot .* content lost at byte"},
                                         Finding{Fault::kScribble, "content lost at byte"},
                                         Finding{Fault::kSizeChanges, "usable size of block .* is now"},
                                         Finding{Fault::kRefuses, "refused, although memory is left"},
                                         Finding{Fault::kKeepsMemory, "memory is kept"}));

TEST(ShadowHeap, BlocksThatTouchAreApartAndBlocksThatShareAByteAreNot) {
  alignas(16) char memory[64];
  ShadowHeap shadow;
  const Block middle = {memory + 16, 16, 16, 1};
  EXPECT_FALSE(shadow.Add(middle).has_value());
  EXPECT_FALSE(shadow.Add({memory, 16, 16, 2}).has_value());
  EXPECT_FALSE(shadow.Add({memory + 32, 16, 16, 3}).has_value());
  EXPECT_EQ(shadow.Add({memory + 16, 0, 0, 4})->number, 1u);
  EXPECT_EQ(shadow.Add({memory + 31, 1, 1, 5})->number, 1u);
  EXPECT_EQ(shadow.Add({memory + 47, 17, 17, 6})->number, 3u);
  shadow.Remove(middle);
  EXPECT_EQ(shadow.Add({memory + 15, 2, 2, 7})->number, 2u);
  EXPECT_EQ(shadow.Add({memory + 17, 16, 16, 8})->number, 3u);
  EXPECT_FALSE(shadow.Add(middle).has_value());
}

TEST(Content, OfAnotherBlockAnotherPlaceOrAnotherSeedIsDifferent) {
  std::vector<char> memory(8192);
  Content(1, 1).Fill(memory.data(), memory.size());
  EXPECT_FALSE(Content(1, 1).FirstDifference(memory.data(), 8192, 8192).has_value());
  EXPECT_TRUE(Content(1, 2).FirstDifference(memory.data(), 8192, 8192).has_value());
  EXPECT_TRUE(Content(2, 1).FirstDifference(memory.data(), 8192, 8192).has_value());
  EXPECT_TRUE(Content(1, 1).FirstDifference(memory.data() + 4096, 4096, 4096).has_value());
}

TEST(Content, EveryByteOfASmallBlockAndBothEndsOfALargeOneAreLookedAt) {
  for (size_t size : {1, 100, 4096, 32768, 32769, 100000, 3000000}) {
    std::vector<char> memory(size);
    Content(1, 1).Fill(memory.data(), size);
    for (size_t i = 0; i < std::min<size_t>(size, 32768); i += 1 + i / 64) {
      memory[i] ^= 1;
      EXPECT_EQ(Content(1, 1).FirstDifference(memory.data(), size, size), i);
      EXPECT_FALSE(Content(1, 1).FirstDifference(memory.data(), size, i).has_value());
      memory[i] ^= 1;
    }
    memory[size - 1] ^= 1;
    EXPECT_EQ(Content(1, 1).FirstDifference(memory.data(), size, size), size - 1);
  }
}

TEST(Content, EveryPageOfALargeBlockIsLookedAt) {
  const size_t size = 200 * 4096;
  std::vector<char> memory(size);
  for (size_t page = 0; page < size; page += 4096) {
    Content(1, 1).Fill(memory.data(), size);
    std::memset(&memory[page], 0, 4096);
    EXPECT_TRUE(Content(1, 1).FirstDifference(memory.data(), size, size).has_value()) << page;
  }
}

TEST(Content, AByteThatIsNotZeroIsFoundWhereverItIs) {
  std::vector<char> memory(10000);
  EXPECT_FALSE(FirstNonZero(memory.data(), memory.size()).has_value());
  for (size_t i = 0; i < memory.size(); i += 37) {
    memory[i] = 1;
    EXPECT_EQ(FirstNonZero(memory.data(), memory.size()), i);
    EXPECT_FALSE(FirstNonZero(memory.data(), i).has_value());
    memory[i] = 0;
  }
}

TEST(Program, TheSameSeedGivesTheSameProgramAndAnotherSeedAnother) {
  const auto text = [](uint64_t seed) {
    std::string all;
    for (const Operation &operation : RandomProgram(seed, 500, TestProfile())) all += ToString(operation) + "\n";
    return all;
  };
  EXPECT_EQ(text(1), text(1));
  EXPECT_NE(text(1), text(2));
}

TEST(Program, AWordIsDecodedAsDocumented) {
  const Profile profile = {4, 64, {{1, 0, 9}, {1, 1000, 66535}}, 64, {{1, 1, 1, 1, 1, 1, 1, 1}}};
  // Thread 2, a slot of its own; the second size range, a quarter into it; the second alignment of three.
  const uint8_t bytes[] = {0x00, 0x42, 0x05, 0x00, 0x80, 0x00, 0x40, 0xc1, 0xff};
  const Program program = DecodeProgram(bytes, profile);
  ASSERT_EQ(program.size(), 1u);
  EXPECT_EQ(ToString(program[0]), "thread 2: malloc slot 37 of 17384 bytes aligned to 32");
}

}  // namespace
}  // namespace hak_oracle

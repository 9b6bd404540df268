// Six patterns of malloc and free for counting the instructions they execute: see instructions.py, which runs this
// under callgrind. Each pattern runs a given number of malloc+free pairs with as little code around the calls as a
// program can have; what there is, is the same for every allocator.
#include <stdio.h>
#include <stdlib.h>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"

namespace hak_bench {
namespace {

inline void *Allocate(size_t size) {
  auto *block = static_cast<unsigned char *>(Malloc(size));
  *block = 1;
  Escape(block);
  return block;
}

[[gnu::noinline]] void Pairs64(uint64_t n_pairs) {
  for (uint64_t i = 0; i < n_pairs; ++i) Free(Allocate(64));
}

[[gnu::noinline]] void PairsOf25Sizes(uint64_t n_pairs) {
  size_t sizes[25];
  for (size_t k = 0; k < 25; ++k) sizes[k] = 40 + 40 * k;
  for (uint64_t i = 0; i < n_pairs; ++i) Free(Allocate(sizes[i % 25]));
}

[[gnu::noinline]] void Batches(uint64_t n_pairs) {
  constexpr size_t kBatch = 100;
  size_t size = 8;  // to 512 in steps of 24: 22 sizes
  static void *blocks[kBatch];
  for (uint64_t i = 0; i < n_pairs; i += kBatch) {
    for (void *&block : blocks) {
      block = Allocate(size);
      size = size == 512 ? 8 : size + 24;
    }
    for (void *block : blocks) Free(block);
  }
}

template <uint32_t kSlots, size_t kSmallest, size_t kLargest>
[[gnu::noinline]] void Replace(uint64_t n_pairs) {
  static void *slots[kSlots];
  Random random(12345);
  for (void *&slot : slots) slot = Allocate(Draw(&random, kSlots, kSmallest, kLargest - kSmallest + 1).size);
  for (uint64_t i = 0; i < n_pairs; ++i) {
    const Draw draw(&random, kSlots, kSmallest, kLargest - kSmallest + 1);
    Free(slots[draw.slot]);
    slots[draw.slot] = Allocate(draw.size);
  }
}

using Pattern = void (*)(uint64_t n_pairs);
constexpr Pattern kPatterns[] = {
    Pairs64, PairsOf25Sizes, Batches, Replace<4096, 8, 1008>, Replace<256, 1100, 31100>, Replace<64, 33000, 933000>};

int Main(int argc, char **argv) {
  Arguments arguments("Runs one of six patterns of malloc and free, for counting instructions: see instructions.py.",
                      {{"pattern", "which, in the order of the table that instructions.py prints", 1, 1, 6},
                       {"pairs", "malloc+free pairs, rounded up to the pattern's cycle", 1000, 0, 1e15}});
  arguments.Parse(argc, argv);
  const std::string allocator = UseAllocator(arguments.allocator(), argv, {8, 1008, 31100, 933000});
  kPatterns[arguments[0].Count() - 1](arguments[1].Count());
  printf("Allocator: %s\n", allocator.c_str());
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

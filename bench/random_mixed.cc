// Random replacement by one thread: each cycle frees the block of a random slot and fills the slot with one of random
// size. It is the plainest mix of sizes and lifetimes, without threads.
#include <stdio.h>

#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"

namespace hak_bench {
namespace {

enum { kCycles, kSlots, kSmallest, kLargest, kSeed };

void Fill(Slot *slot, size_t size) {
  void *block = Malloc(size);
  if (block == nullptr) OutOfMemory(size);
  slot->Fill(block, size);
}

template <bool kCheck>
void Replace(uint64_t n_cycles, std::vector<Slot> *slots, Random *random, size_t smallest, uint32_t n_sizes) {
  const auto n_slots = static_cast<uint32_t>(slots->size());
  for (uint64_t i = 0; i < n_cycles; ++i) {
    Draw draw(random, n_slots, smallest, n_sizes);
    Slot *slot = &(*slots)[draw.slot];
    if (kCheck && !slot->IsIntact()) Corrupted(*slot);
    Free(slot->block);
    Fill(slot, draw.size);
  }
}

int Main(int argc, char **argv) {
  Arguments arguments("Replaces blocks of random size in random slots, in one thread.",
                      {{"cycles", "replacements, each one free and one malloc", 20e6, 1, 1e15},
                       {"slots", "blocks alive at a time", 4096, 1, 100e6},
                       {"smallest", "smallest block in bytes", 8, 1, 1 << 30},
                       {"largest", "largest block in bytes", 1024, 1, 1 << 30},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295}});
  arguments.Parse(argc, argv);
  arguments.RequireAtLeast(kLargest, arguments[kSmallest].value);

  const size_t smallest = arguments[kSmallest].Count();
  const size_t largest = arguments[kLargest].Count();
  const std::string allocator =
      UseAllocator(arguments.allocator(), argv, {smallest, (smallest + largest) / 2, largest});

  const uint64_t n_cycles = arguments[kCycles].Count();
  const auto n_sizes = static_cast<uint32_t>(largest - smallest + 1);
  std::vector<Slot> slots(arguments[kSlots].Count());
  Random random(arguments[kSeed].Count());
  for (Slot &slot : slots) Fill(&slot, smallest + Below(random.Next() >> 32, n_sizes));

  const double start = NowSeconds();
  const double user_start = UserSeconds();
  if (arguments.check()) {
    Replace<true>(n_cycles, &slots, &random, smallest, n_sizes);
  } else {
    Replace<false>(n_cycles, &slots, &random, smallest, n_sizes);
  }
  const double duration = NowSeconds() - start;
  const double user = UserSeconds() - user_start;
  for (Slot &slot : slots) {
    if (!slot.IsIntact()) Corrupted(slot);
    Free(slot.block);
  }

  printf("Allocator: %s\n", allocator.c_str());
  printf("Throughput = %.0f operations per second\n", static_cast<double>(n_cycles) / duration);
  printf("Operations: %llu in %.3f s, %.3f s user\n", static_cast<unsigned long long>(n_cycles), duration, user);
  printf("Peak RSS: %zu KiB\n", PeakRssKib());
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

// Random replacement: each cycle frees the block of a random slot and fills the slot with one of random size. It is the
// plainest mix of sizes and lifetimes; each thread works on slots of its own.
#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kCycles, kSlots, kSmallest, kLargest, kSeed, kThreads, kTouch };

struct Load {
  uint64_t n_cycles;
  uint32_t n_slots;
  size_t smallest;
  uint32_t n_sizes;
};

template <bool kCheck, bool kTouchPages>
void Replace(const Load &load, std::vector<Slot> *slots, Random *random) {
  for (uint64_t i = 0; i < load.n_cycles; ++i) {
    Draw draw(random, load.n_slots, load.smallest, load.n_sizes);
    Slot *slot = &(*slots)[draw.slot];
    if (kCheck && !slot->IsIntact()) Corrupted(*slot);
    Free(slot->block);
    slot->Allocate(draw.size);
    if (kTouchPages) TouchPages(slot->block, 1, draw.size - 1);
  }
}

int Main(int argc, char **argv) {
  Arguments arguments("Replaces blocks of random size in random slots.",
                      {{"cycles", "replacements of each thread, each one free and one malloc", 20e6, 1, 1e15},
                       {"slots", "blocks of each thread alive at a time", 4096, 1, 100e6},
                       {"smallest", "smallest block in bytes", 8, 1, 1 << 30},
                       {"largest", "largest block in bytes", 1024, 1, 1 << 30},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295},
                       {"threads", "threads at a time", 1, 1, 4096},
                       Choice("touch", "what is written of each block", {"ends", "pages"})},
                      /*has_check=*/true);
  arguments.Parse(argc, argv);
  arguments.RequireAtLeast(kLargest, arguments[kSmallest].value);

  const size_t smallest = arguments[kSmallest].Count();
  const size_t largest = arguments[kLargest].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, SizesToProve(smallest, largest));

  const uint64_t n_threads = arguments[kThreads].Count();
  const Load load = {arguments[kCycles].Count(), static_cast<uint32_t>(arguments[kSlots].Count()), smallest,
                     static_cast<uint32_t>(largest - smallest + 1)};
  const bool touch_pages = arguments[kTouch].Count() == 1;
  const auto replace = arguments.check() ? (touch_pages ? Replace<true, true> : Replace<true, false>)
                                         : (touch_pages ? Replace<false, true> : Replace<false, false>);
  Measurement measurement;
  RunInThreads(n_threads, [&](uint64_t thread) {
    Random random(arguments[kSeed].Count() + thread * 0x100000000u);
    std::vector<Slot> slots(load.n_slots);
    for (Slot &slot : slots) slot.Allocate(smallest + Below(random.Next() >> 32, load.n_sizes));
    replace(load, &slots, &random);
    for (Slot &slot : slots) {
      if (!slot.IsIntact()) Corrupted(slot);
      Free(slot.block);
    }
  });
  measurement.Stop();
  measurement.Print(allocator, load.n_cycles * n_threads);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

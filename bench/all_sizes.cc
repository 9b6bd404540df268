// Random replacement over sizes of all magnitudes by malloc, calloc or aligned requests. calloc is asked to show zeros:
// both ends of each block are read before they are written.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kCall, kCycles, kSlots, kSmallest, kLargest, kSeed };

using Call = void *(*)(size_t size, Random *random);

void *CallMalloc(size_t size, Random *) { return malloc(size); }

void *CallCalloc(size_t size, Random *) {
  auto *block = static_cast<unsigned char *>(calloc(1, size));
  if (block != nullptr && (block[0] | block[size - 1]) != 0) {
    fprintf(stderr, "%s: calloc of %zu B is not zero\n", program_invocation_short_name, size);
    exit(1);
  }
  return block;
}

// From 16 B to 4 KiB, each as likely as any other.
void *CallAligned(size_t size, Random *random) {
  const size_t alignment = size_t{16} << Below(random->Next() >> 32, 9);
  void *block = nullptr;
  return posix_memalign(&block, alignment, size) == 0 ? block : nullptr;
}

constexpr Call kCalls[] = {CallMalloc, CallCalloc, CallAligned};

int Main(int argc, char **argv) {
  Arguments arguments("Replaces blocks in random slots; each doubling of the size is as likely as any other.",
                      {Choice("call", "what is called", {"malloc", "calloc", "aligned"}),
                       {"cycles", "replacements", 1e6, 1, 1e15},
                       {"slots", "blocks alive at a time", 256, 1, 100e6},
                       {"smallest", "smallest block in bytes", 8, 1, 1 << 30},
                       {"largest", "largest block in bytes", 4 << 20, 1, 1 << 30},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295}},
                      /*has_check=*/true);
  arguments.Parse(argc, argv);
  arguments.RequireAtLeast(kLargest, arguments[kSmallest].value);
  const size_t smallest = arguments[kSmallest].Count();
  const size_t largest = arguments[kLargest].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, SizesToProve(smallest, largest));

  const Call call = kCalls[arguments[kCall].Count()];
  const uint64_t n_cycles = arguments[kCycles].Count();
  const auto n_slots = static_cast<uint32_t>(arguments[kSlots].Count());
  std::vector<Slot> slots(n_slots);
  Random random(arguments[kSeed].Count());
  Measurement measurement;
  for (uint64_t i = 0; i < n_cycles; ++i) {
    Slot *slot = &slots[Below(random.Next() >> 32, n_slots)];
    if (arguments.check() && slot->block != nullptr && !slot->IsIntact()) Corrupted(*slot);
    free(slot->block);
    const size_t size = SizeOfAnyMagnitude(&random, smallest, largest);
    void *block = call(size, &random);
    if (block == nullptr) OutOfMemory(size);
    slot->Fill(block, size);
  }
  measurement.Stop();
  for (const Slot &slot : slots) free(slot.block);
  measurement.Print(allocator, n_cycles);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

// Threads that live for a few blocks only. Most blocks die with their thread; every eighth outlives it and is freed by
// the thread that waited for it: what a server does that starts a thread for each request.
#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kRounds, kThreads, kBlocks, kSmallest, kLargest, kSeed };

constexpr size_t kSurvivorEvery = 8;

int Main(int argc, char **argv) {
  Arguments arguments("Starts threads that allocate, free and end, a few at a time.",
                      {{"rounds", "how often the threads are started", 10e3, 1, 1e12},
                       {"threads", "threads of one round", 2, 1, 4096},
                       {"blocks", "blocks that a thread allocates", 100, 1, 1e8},
                       {"smallest", "smallest block in bytes", 16, 1, 1 << 30},
                       {"largest", "largest block in bytes", 4096, 1, 1 << 30},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295}});
  arguments.Parse(argc, argv);
  arguments.RequireAtLeast(kLargest, arguments[kSmallest].value);
  const size_t smallest = arguments[kSmallest].Count();
  const size_t largest = arguments[kLargest].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, SizesToProve(smallest, largest));

  const size_t n_blocks = arguments[kBlocks].Count();
  const uint64_t n_threads = arguments[kThreads].Count();
  const uint64_t n_rounds = arguments[kRounds].Count();
  std::vector<std::vector<unsigned char *>> blocks(n_threads, std::vector<unsigned char *>(n_blocks));
  Measurement measurement;
  for (uint64_t round = 0; round < n_rounds; ++round) {
    std::vector<std::thread> threads;
    for (uint64_t i = 0; i < n_threads; ++i) {
      threads.emplace_back([&, i] {
        Random random(arguments[kSeed].Count() + (round * n_threads + i) * 0x100000000u);
        for (unsigned char *&block : blocks[i]) block = AllocateUsed(SizeOfAnyMagnitude(&random, smallest, largest));
        for (size_t k = 0; k < n_blocks; ++k) {
          if (k % kSurvivorEvery != 0) Free(blocks[i][k]);
        }
      });
    }
    for (uint64_t i = 0; i < n_threads; ++i) {
      threads[i].join();
      for (size_t k = 0; k < n_blocks; k += kSurvivorEvery) Free(blocks[i][k]);
    }
  }
  measurement.Stop();
  measurement.Print(allocator, n_rounds * n_threads * n_blocks);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

// Whether blocks of different threads lie on one cache line, after the tests of Berger et al., "Hoard: A Scalable
// Memory Allocator for Multithreaded Applications" (ASPLOS 2000). `active`: the allocator would have to hand parts of a
// line to several threads. `passive`: the main thread allocates neighbours and gives one to each thread, which frees it
// and then should not get it, or its line, again as its own.
#include <atomic>
#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kPattern, kRounds, kWrites, kSize, kThreads };
enum { kActive, kPassive };

int Main(int argc, char **argv) {
  Arguments arguments("Writes to small blocks in several threads: slow where they share a cache line.",
                      {Choice("pattern", "whether threads start with blocks of the main thread", {"active", "passive"}),
                       {"rounds", "blocks that each thread allocates, one after the other", 1000, 1, 1e12},
                       {"writes", "writes to each block", 10000, 1, 1e12},
                       {"size", "size of each block in bytes", 8, 8, 1 << 20},
                       {"threads", "threads at a time", 2, 1, 4096}});
  arguments.Parse(argc, argv);
  const size_t size = arguments[kSize].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, {size});

  const uint64_t n_rounds = arguments[kRounds].Count();
  const uint64_t n_writes = arguments[kWrites].Count();
  const uint64_t n_threads = arguments[kThreads].Count();
  std::vector<unsigned char *> gifts(n_threads, nullptr);
  if (arguments[kPattern].Count() == kPassive) {
    for (unsigned char *&gift : gifts) gift = AllocateUsed(size);
  }
  // Threads that do not run at the same time share nothing: each waits for the last to have started.
  std::atomic<uint64_t> n_waited_for{n_threads};
  Measurement measurement;
  RunInThreads(n_threads, [&](uint64_t thread) {
    n_waited_for.fetch_sub(1, std::memory_order_relaxed);
    while (n_waited_for.load(std::memory_order_relaxed) > 0) std::this_thread::yield();
    Free(gifts[thread]);
    for (uint64_t i = 0; i < n_rounds; ++i) {
      auto *block = reinterpret_cast<volatile uint64_t *>(AllocateUsed(size));
      for (uint64_t k = 0; k < n_writes; ++k) *block = *block + 1;
      Free(const_cast<uint64_t *>(block));
    }
  });
  measurement.Stop();
  measurement.Print(allocator, n_threads * n_rounds * n_writes);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

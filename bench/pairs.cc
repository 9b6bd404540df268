// Small pairs: batches of blocks of one size, each batch freed in an order of its own. LIFO is what a stack of caches
// likes best, FIFO is a queue, a random order scatters the next batch over the addresses of the last.
#include <algorithm>
#include <numeric>
#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kPattern, kBatches, kBatch, kSize, kThreads };
enum { kLifo, kFifo, kRandom };

std::vector<size_t> OrderOfFrees(uint64_t pattern, size_t n_blocks) {
  std::vector<size_t> order(n_blocks);
  std::iota(order.begin(), order.end(), 0);
  if (pattern == kLifo) std::reverse(order.begin(), order.end());
  if (pattern == kRandom) {
    Random random(12345);
    for (size_t i = n_blocks; i > 1; --i) {
      std::swap(order[i - 1], order[Below(random.Next() >> 32, static_cast<uint32_t>(i))]);
    }
  }
  return order;
}

int Main(int argc, char **argv) {
  Arguments arguments("Allocates batches of blocks of one size and frees each in a given order.",
                      {Choice("pattern", "the order of the frees", {"lifo", "fifo", "random"}),
                       {"batches", "batches of each thread", 100e3, 1, 1e15},
                       {"batch", "blocks in a batch; 1 makes pairs of malloc and free", 100, 1, 1e8},
                       {"size", "size of each block in bytes", 64, 1, 1 << 30},
                       {"threads", "threads at a time", 1, 1, 4096}});
  arguments.Parse(argc, argv);
  const size_t size = arguments[kSize].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, {size});

  const uint64_t n_batches = arguments[kBatches].Count();
  const size_t n_blocks = arguments[kBatch].Count();
  const uint64_t n_threads = arguments[kThreads].Count();
  Measurement measurement;
  RunInThreads(n_threads, [&](uint64_t) {
    const std::vector<size_t> order = OrderOfFrees(arguments[kPattern].Count(), n_blocks);
    std::vector<unsigned char *> blocks(n_blocks);
    for (uint64_t i = 0; i < n_batches; ++i) {
      for (unsigned char *&block : blocks) block = AllocateUsed(size);
      for (size_t k : order) Free(blocks[k]);
    }
  });
  measurement.Stop();
  measurement.Print(allocator, n_threads * n_batches * n_blocks);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

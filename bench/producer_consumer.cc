// Batches of blocks that other threads free. `deliver`: producers only allocate, and one consumer only frees what they
// send; with one producer that is one to one, with more many to one. `exchange`: each thread sends its batches to the
// next and frees those of the previous one, as the stages of a pipeline do.
#include <deque>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/batch_ring.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kPattern, kBatches, kBatch, kSmallest, kLargest, kThreads, kSeed };
enum { kDeliver, kExchange };

struct Load {
  size_t n_blocks;
  size_t smallest;
  uint32_t n_sizes;
};

void Send(BatchRing *ring, const Load &load, Random *random) {
  void **blocks = ring->BeginPut();
  for (size_t i = 0; i < load.n_blocks; ++i) {
    blocks[i] = AllocateUsed(load.smallest + Below(random->Next() >> 32, load.n_sizes));
  }
  ring->EndPut();
}

void Receive(BatchRing *ring, const Load &load) {
  void **blocks = ring->BeginTake();
  for (size_t i = 0; i < load.n_blocks; ++i) Free(blocks[i]);
  ring->EndTake();
}

int Main(int argc, char **argv) {
  Arguments arguments("Hands batches of blocks to other threads, which free them.",
                      {Choice("pattern", "who frees: one consumer, or the next thread", {"deliver", "exchange"}),
                       {"batches", "batches of each thread that allocates", 100e3, 1, 1e15},
                       {"batch", "blocks in a batch", 100, 1, kMaxBatchBlocks},
                       {"smallest", "smallest block in bytes", 16, 1, 1 << 30},
                       {"largest", "largest block in bytes", 256, 1, 1 << 30},
                       {"threads", "threads that allocate; deliver has one more, which frees", 1, 1, 1000},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295}});
  arguments.Parse(argc, argv);
  arguments.RequireAtLeast(kLargest, arguments[kSmallest].value);
  const size_t smallest = arguments[kSmallest].Count();
  const size_t largest = arguments[kLargest].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, SizesToProve(smallest, largest));

  const Load load = {arguments[kBatch].Count(), smallest, static_cast<uint32_t>(largest - smallest + 1)};
  const uint64_t n_batches = arguments[kBatches].Count();
  const uint64_t n_senders = arguments[kThreads].Count();
  const bool has_consumer = arguments[kPattern].Count() == kDeliver;
  std::deque<BatchRing> rings(n_senders);  // ring i: what thread i sends
  Measurement measurement;
  RunInThreads(n_senders + has_consumer, [&](uint64_t thread) {
    Random random(arguments[kSeed].Count() + thread * 0x100000000u);
    const bool is_consumer = thread == n_senders;
    for (uint64_t i = 0; i < n_batches; ++i) {
      if (!is_consumer) Send(&rings[thread], load, &random);
      if (!has_consumer) Receive(&rings[(thread + n_senders - 1) % n_senders], load);
      if (!is_consumer) continue;
      for (BatchRing &ring : rings) Receive(&ring, load);
    }
  });
  measurement.Stop();
  measurement.Print(allocator, n_senders * n_batches * load.n_blocks);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

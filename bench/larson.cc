// The server benchmark of Larson and Krishnan ("Memory Allocation for Long-Running Server Applications", ISMM 1998),
// written anew. Each chain of threads owns an array of blocks. A thread replaces random ones, then starts a successor
// that inherits the array, and ends: most blocks are freed by another thread than the one that allocated them, which is
// dead by then. See README.md for what is counted and where this differs from larson.cpp.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <atomic>
#include <utility>
#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kSeconds, kSmallest, kLargest, kBlocks, kRounds, kSeed, kThreads };

struct Load {
  size_t smallest;
  uint32_t n_sizes;
  uint32_t n_blocks;
  uint64_t n_replacements;  // per thread
  bool check;
};

// Read by all threads, written once.
alignas(128) std::atomic<bool> stop{false};

// What a thread hands to its successor. Only the running thread of the chain touches it; pthread_create and
// pthread_join order the hand-overs.
struct alignas(128) Chain {
  Chain(const Load *the_load, uint64_t seed) : load(the_load), slots(the_load->n_blocks), random(seed) {}

  const Load *load;
  std::vector<Slot> slots;
  Random random;
  uint64_t n_replacements = 0;
  uint64_t n_threads = 0;
  pthread_t predecessor{};  // ended, or about to; valid where n_threads > 0
  std::atomic<bool> is_over{false};
};

template <bool kCheck>
inline void Replace(Chain *chain, const Load &load) {
  Draw draw(&chain->random, load.n_blocks, load.smallest, load.n_sizes);
  Slot *slot = &chain->slots[draw.slot];
  if (kCheck && !slot->IsIntact()) Corrupted(*slot);
  Free(slot->block);
  slot->Allocate(draw.size);
}

template <bool kCheck>
uint64_t ReplaceUntilDone(Chain *chain, const Load &load) {
  uint64_t n = 0;
  while (n < load.n_replacements && !stop.load(std::memory_order_relaxed)) {
    Replace<kCheck>(chain, load);
    ++n;
  }
  return n;
}

void *RunThread(void *argument);

void StartThread(Chain *chain) {
  pthread_t thread;
  int error = pthread_create(&thread, nullptr, RunThread, chain);
  if (error != 0) {
    fprintf(stderr, "larson: cannot start a thread: %s\n", strerror(error));
    exit(1);
  }
}

void *RunThread(void *argument) {
  auto *chain = static_cast<Chain *>(argument);
  const Load &load = *chain->load;
  chain->n_replacements += load.check ? ReplaceUntilDone<true>(chain, load) : ReplaceUntilDone<false>(chain, load);
  // By now the predecessor has ended, so this does not wait; without it, dead threads' stacks would pile up.
  if (chain->n_threads++ > 0) pthread_join(chain->predecessor, nullptr);
  chain->predecessor = pthread_self();
  if (stop.load(std::memory_order_relaxed)) {
    chain->is_over.store(true, std::memory_order_release);  // pairs with WaitForEnd: publishes the chain
  } else {
    StartThread(chain);
  }
  return nullptr;
}

void WaitForEnd(Chain *chain) {
  while (!chain->is_over.load(std::memory_order_acquire)) {
    constexpr struct timespec kPause = {0, 100 * 1000};
    nanosleep(&kPause, nullptr);
  }
}

// Ages the heap as the traditional program does before its clock starts: all blocks from the main thread, shuffled, and
// then four replacements for each.
void WarmUp(Chain *chain) {
  const Load &load = *chain->load;
  for (Slot &slot : chain->slots) slot.Allocate(load.smallest + Below(chain->random.Next() >> 32, load.n_sizes));
  for (uint32_t i = load.n_blocks; i > 1; --i) {
    Slot *a = &chain->slots[i - 1];
    Slot *b = &chain->slots[Below(chain->random.Next() >> 32, i)];
    Slot old_a = *a;
    a->Fill(b->block, b->size);
    if (a != b) b->Fill(old_a.block, old_a.size);
  }
  for (uint64_t i = 0; i < uint64_t{4} * load.n_blocks; ++i) Replace<true>(chain, load);
}

int Main(int argc, char **argv) {
  Arguments arguments("Larson and Krishnan's server benchmark: threads replace blocks and leave them to successors.",
                      {{"seconds", "how long to measure", 10, 0.001, 86400, true},
                       {"smallest", "smallest block in bytes", 8, 1, 1 << 30},
                       {"largest", "largest block in bytes", 128, 1, 1 << 30},
                       {"blocks", "blocks per thread", 1024, 1, 100e6},
                       {"rounds", "replacements per thread before it ends, in multiples of blocks", 1, 1, 1e9},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295},
                       {"threads", "threads at a time", 4, 1, 4096}},
                      /*has_check=*/true);
  arguments.Parse(argc, argv);
  arguments.RequireAtLeast(kLargest, arguments[kSmallest].value);

  const size_t smallest = arguments[kSmallest].Count();
  const size_t largest = arguments[kLargest].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, SizesToProve(smallest, largest));

  const Load load = {smallest, static_cast<uint32_t>(largest - smallest + 1),
                     static_cast<uint32_t>(arguments[kBlocks].Count()),
                     arguments[kBlocks].Count() * arguments[kRounds].Count(), arguments.check()};
  std::vector<Chain *> chains;
  for (uint64_t i = 0; i < arguments[kThreads].Count(); ++i) {
    chains.push_back(new Chain(&load, arguments[kSeed].Count() + i * 0x100000000u));
    WarmUp(chains.back());
  }

  Measurement measurement;
  for (Chain *chain : chains) StartThread(chain);
  SleepSeconds(arguments[kSeconds].value);
  stop.store(true, std::memory_order_relaxed);
  for (Chain *chain : chains) WaitForEnd(chain);
  measurement.Stop();

  uint64_t n_replacements = 0;
  uint64_t n_threads = 0;
  for (Chain *chain : chains) {
    pthread_join(chain->predecessor, nullptr);
    n_replacements += chain->n_replacements;
    n_threads += chain->n_threads;
    for (Slot &slot : chain->slots) {
      if (!slot.IsIntact()) Corrupted(slot);
      Free(slot.block);
    }
    delete chain;
  }

  measurement.Print(allocator, n_replacements);
  printf("Threads: %llu\n", static_cast<unsigned long long>(n_threads));
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

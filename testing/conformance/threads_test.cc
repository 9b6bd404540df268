// "100,000 short threads leave RSS flat; 2,000 live threads work; blocks outlive their thread and are freed by any
// other; a thread that only frees and a thread that only allocates do not grow memory beyond 1.5 times the live size; a
// sleeping owner strands nothing (the memory that others free for it is usable by others within the decay time)."
#include <fcntl.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ostream>
#include <random>
#include <thread>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::Opaque;

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;

// One of each tier.
constexpr size_t kSizes[] = {48, 700, 5000, 30 * kKiB, 100 * kKiB, 3 * kMiB};

// Bytes of memory that the process has in use, from the page tables: the counters behind statm lag by some pages for
// each core. Does not allocate.
size_t ResidentBytes() {
  char text[256] = "";
  int file = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
  if (file < 0 || read(file, text, sizeof text - 1) <= 0) abort();
  close(file);
  const char *rss = strstr(text, "\nRss:");
  if (rss == nullptr) abort();
  return strtoull(rss + strlen("\nRss:"), nullptr, 10) * kKiB;
}

struct Block {
  unsigned char *start = nullptr;
  size_t size = 0;
};

// A block of which first and last byte tell `mark`.
Block Allocate(size_t size, size_t mark) {
  Block block{static_cast<unsigned char *>(malloc(size)), size};
  if (block.start == nullptr) abort();
  block.start[0] = static_cast<unsigned char>(mark);
  block.start[size - 1] = static_cast<unsigned char>(mark);
  return block;
}

bool Holds(const Block &block, size_t mark) {
  return block.start[0] == static_cast<unsigned char>(mark) &&
         block.start[block.size - 1] == static_cast<unsigned char>(mark);
}

// A thread with a small stack: thousands of the usual ones might not fit.
pthread_t Start(void *(*function)(void *), void *argument) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * kKiB);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, function, argument);
  pthread_attr_destroy(&attributes);
  if (error != 0) abort();
  return thread;
}

TEST(Threads, AHundredThousandShortThreadsLeaveTheResidentSizeFlat) {
  // Each frees what its predecessor left, and leaves as much.
  static Block left[std::size(kSizes)];
  auto run = [](unsigned n_threads) {
    for (unsigned i = 0; i < n_threads; ++i) {
      pthread_join(Start(
                       [](void *) -> void * {
                         for (size_t j = 0; j < std::size(kSizes); ++j) {
                           Block temporary = Allocate(kSizes[j], j);
                           free(left[j].start);
                           left[j] = Allocate(kSizes[j], j);
                           free(temporary.start);
                         }
                         return nullptr;
                       },
                       nullptr),
                   nullptr);
    }
  };
  run(1000);
  const size_t before = ResidentBytes();
  run(99000);
  EXPECT_LE(ResidentBytes(), before + 4 * kMiB);
  for (Block &block : left) free(block.start);
}

TEST(Threads, TwoThousandLiveThreadsAllWork) {
  constexpr size_t kThreads = 2000;
  static pthread_barrier_t all_live;
  pthread_barrier_init(&all_live, nullptr, kThreads);
  struct Live {
    pthread_t thread;
    size_t number;
    bool whole;
  };
  std::vector<Live> live(kThreads);
  for (size_t i = 0; i < kThreads; ++i) {
    live[i].number = i;
    live[i].thread = Start(
        [](void *argument) -> void * {
          Live *self = static_cast<Live *>(argument);
          Block blocks[std::size(kSizes)];
          for (size_t j = 0; j < std::size(kSizes); ++j) blocks[j] = Allocate(kSizes[j], self->number + j);
          pthread_barrier_wait(&all_live);
          self->whole = true;
          for (size_t j = 0; j < std::size(kSizes); ++j) {
            self->whole &= Holds(blocks[j], self->number + j);
            free(blocks[j].start);
          }
          return nullptr;
        },
        &live[i]);
  }
  size_t n_whole = 0;
  for (Live &one : live) {
    pthread_join(one.thread, nullptr);
    n_whole += one.whole;
  }
  EXPECT_EQ(n_whole, kThreads);
  pthread_barrier_destroy(&all_live);
}

TEST(Threads, BlocksOutliveTheirThreadAndAreFreedByAnyOther) {
  constexpr size_t kRounds = 200;
  std::vector<Block> blocks(20 * std::size(kSizes));
  for (size_t round = 0; round < kRounds; ++round) {
    std::thread([&] {
      for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = Allocate(kSizes[i % std::size(kSizes)], round + i);
    }).join();
    auto take = [&](size_t first) {
      for (size_t i = first; i < blocks.size(); i += 2) {
        EXPECT_TRUE(Holds(blocks[i], round + i)) << i;
        free(blocks[i].start);
      }
    };
    std::thread other(take, 1);
    take(0);
    other.join();
  }
}

TEST(Threads, ASleepingOwnerStrandsNothing) {
  constexpr size_t kLiveBytes = 64 * kMiB;
  for (size_t size : {100, 1000, 10000}) {
    std::vector<void *> blocks(kLiveBytes / size);
    malloc_trim(0);
    const size_t before = ResidentBytes();
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, nullptr, 2);
    std::thread owner([&] {
      for (void *&block : blocks) block = memset(malloc(size), 1, size);
      pthread_barrier_wait(&barrier);
      pthread_barrier_wait(&barrier);  // sleeps
    });
    pthread_barrier_wait(&barrier);
    EXPECT_GE(ResidentBytes(), before + kLiveBytes);
    for (void *block : blocks) free(block);
    // What another thread does meanwhile is little. The limit is for what never comes.
    for (size_t i = 0; i < 30000 && ResidentBytes() > before + kLiveBytes / 8; ++i) {
      usleep(1000);
      for (size_t other_size : kSizes) free(Opaque(malloc(other_size)));
    }
    EXPECT_LE(ResidentBytes(), before + kLiveBytes / 8) << size;
    pthread_barrier_wait(&barrier);
    owner.join();
    pthread_barrier_destroy(&barrier);
  }
}

// What is live of a block of `size` bytes: in the hardened library also its seal of 8 bytes, and blocks are 16 apart.
// Blocks of Huge have no seal.
size_t LiveBytes(size_t size) { return hak_test::IsHardened() && size < 2 * kMiB ? (size + 8 + 15) / 16 * 16 : size; }

// Blocks of min to max bytes, every order of magnitude as frequent as the others, of which so many bytes are live.
struct Load {
  size_t min, max, live_bytes;
};

void PrintTo(const Load &load, std::ostream *out) {
  *out << load.min << "to" << load.max << "of" << load.live_bytes / kMiB << "MiB";
}

class OneWay : public testing::TestWithParam<Load> {};

TEST_P(OneWay, AnAllocatingAndAFreeingThreadKeepMemoryBelowOnePointFourTimesTheLiveSize) {
  constexpr size_t kBatches = 8;
  constexpr size_t kRounds = 80;  // all blocks are replaced nine times
  const Load load = GetParam();
  const size_t batch_bytes = load.live_bytes / kBatches;

  // Made and touched before the measurement: large enough for the smallest blocks.
  std::vector<Block> batches[kBatches];
  for (auto &batch : batches) {
    batch.resize(batch_bytes / load.min + 1);
    batch.clear();
  }
  // Both threads meet before and after the measurement of each round.
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, 2);

  malloc_trim(0);
  const size_t before = ResidentBytes();
  size_t highest = before;
  // Between two measurements a batch more may be live: the allocating thread is mostly ahead of the freeing one.
  std::atomic<size_t> live_bytes = 0;
  size_t most_live_bytes = 0;
  std::thread allocating([&] {
    std::mt19937_64 random(7);
    std::uniform_real_distribution<double> magnitude(std::log2(load.min), std::log2(load.max));
    for (size_t round = 0; round < kRounds; ++round) {
      pthread_barrier_wait(&barrier);
      pthread_barrier_wait(&barrier);
      size_t bytes = 0;
      while (bytes < batch_bytes) {
        const size_t size = std::clamp(static_cast<size_t>(std::exp2(magnitude(random))), load.min, load.max);
        Block block = Allocate(size, round);
        memset(block.start, static_cast<int>(round), size);
        batches[round % kBatches].push_back(block);
        bytes += size;
        most_live_bytes = std::max(most_live_bytes, live_bytes += LiveBytes(size));
      }
    }
  });
  size_t n_broken = 0;
  for (size_t round = 0; round < kRounds; ++round) {
    pthread_barrier_wait(&barrier);
    const size_t resident = ResidentBytes();
    EXPECT_GE(resident, before + live_bytes) << "the blocks are not in memory";
    highest = std::max(highest, resident);
    pthread_barrier_wait(&barrier);
    // The oldest batch; the allocating thread is at work on the one before it.
    std::vector<Block> &batch = batches[(round + 1) % kBatches];
    for (const Block &block : batch) {
      n_broken += !Holds(block, round + 1 - kBatches);
      free(block.start);
      live_bytes -= LiveBytes(block.size);
    }
    batch.clear();
  }
  allocating.join();
  pthread_barrier_destroy(&barrier);
  EXPECT_EQ(n_broken, 0u);
  EXPECT_LE(highest, before + most_live_bytes * 7 / 5);
  for (auto &batch : batches) {
    for (const Block &block : batch) free(block.start);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, OneWay,
                         testing::Values(Load{32, 32, 16 * kMiB}, Load{1000, 1000, 64 * kMiB},
                                         Load{10000, 10000, 64 * kMiB}, Load{100 * kKiB, 100 * kKiB, 64 * kMiB},
                                         Load{3 * kMiB, 3 * kMiB, 64 * kMiB}, Load{16, 2000, 64 * kMiB},
                                         Load{2000, 32 * kKiB, 64 * kMiB}, Load{40 * kKiB, 1500 * kKiB, 64 * kMiB},
                                         Load{2000, 3 * kMiB, 64 * kMiB}, Load{2000, 3 * kMiB, 256 * kMiB}),
                         testing::PrintToStringParamName());

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

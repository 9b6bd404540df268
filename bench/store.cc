// A key-value store that ages. Keys are set and deleted at random; the values' sizes drift as time goes by, and now and
// then the store holds half as much for a while. So blocks of one time must find room between those of another, and
// what the process holds above its live bytes is fragmentation. Time is virtual: the same operations on every machine.
#include <stdio.h>

#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kSeconds, kRate, kKeys, kLargest, kSeed };

constexpr uint64_t kSampleSeconds = 10;

class Store {
 public:
  Store(size_t n_keys, size_t largest, uint64_t seed) : values_(n_keys), largest_(largest), random_(seed) {}
  ~Store() {
    for (Slot &value : values_) Drop(&value);
  }
  Store(const Store &) = delete;
  Store &operator=(const Store &) = delete;

  void Operate(uint64_t second) {
    Slot *value = &values_[Below(random_.Next() >> 32, static_cast<uint32_t>(values_.size()))];
    Drop(value);
    // Every other minute the store is at its half.
    const bool shall_stay_empty = second / 60 % 2 == 1 && (random_.Next() >> 63) == 1;
    if (!shall_stay_empty) Set(value, second);
  }

  size_t live_bytes() const { return live_bytes_; }

 private:
  void Set(Slot *value, uint64_t second) {
    // From one minute to the next the smallest size goes up by half, eight times, and then starts over.
    static constexpr size_t kSmallest[] = {16, 24, 36, 54, 81, 121, 182, 273};
    value->Allocate(SizeOfAnyMagnitude(&random_, kSmallest[second / 60 % 8], Largest()));
    TouchPages(value->block, 1, value->size - 1);
    live_bytes_ += value->size;
  }

  // One value of 32 may be as large as the largest, the others up to 1 KiB.
  size_t Largest() { return random_.Next() >> 59 == 0 ? largest_ : 1024; }

  void Drop(Slot *value) {
    if (value->block == nullptr) return;
    if (!value->IsIntact()) Corrupted(*value);
    Free(value->block);
    live_bytes_ -= value->size;
    value->block = nullptr;
  }

  std::vector<Slot> values_;
  size_t largest_;
  Random random_;
  size_t live_bytes_ = 0;
};

struct Sample {
  uint64_t second;
  size_t live_kib;
  size_t rss_kib;
};

int Main(int argc, char **argv) {
  Arguments arguments("Lets a key-value store age, and samples its resident set.",
                      {{"seconds", "virtual time", 600, 1, 1e9},
                       {"rate", "sets and deletions in a virtual second", 10e3, 1, 1e9},
                       {"keys", "keys in the store", 200e3, 1, 100e6},
                       {"largest", "largest value in bytes", 64 << 10, 1024, 1 << 30},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295}});
  arguments.Parse(argc, argv);
  const size_t largest = arguments[kLargest].Count();
  const std::string allocator = UseAllocator(arguments.allocator(), argv, {16, 1024, largest});

  const uint64_t n_seconds = arguments[kSeconds].Count();
  const uint64_t rate = arguments[kRate].Count();
  std::vector<Sample> samples;
  samples.reserve(n_seconds / kSampleSeconds + 1);
  Store store(arguments[kKeys].Count(), largest, arguments[kSeed].Count());
  Measurement measurement;
  for (uint64_t second = 0; second < n_seconds; ++second) {
    for (uint64_t i = 0; i < rate; ++i) store.Operate(second);
    if ((second + 1) % kSampleSeconds == 0) samples.push_back({second + 1, store.live_bytes() >> 10, RssKib()});
  }
  measurement.Stop();
  measurement.Print(allocator, n_seconds * rate);
  for (const Sample &sample : samples) {
    printf("Sample: %llu s, %zu KiB live, %zu KiB resident\n", static_cast<unsigned long long>(sample.second),
           sample.live_kib, sample.rss_kib);
  }
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

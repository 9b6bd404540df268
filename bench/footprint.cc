// Memory that an allocator takes for a program's live blocks, and gives back: one scenario in one process, with a line
// for each checkpoint. footprint.py runs the scenarios over several allocators and sets the results side by side.
#include <malloc.h>
#include <stdio.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/footprint_scenarios.h"

namespace hak_bench {

size_t Bench::Scaled(size_t n, size_t min) const {
  return std::max(min, static_cast<size_t>(static_cast<double>(n) * scale));
}

void Bench::IdleAndTrim() {
  constexpr int kSamples = 6;
  for (int i = 0; i < kSamples; ++i) {
    meter.Sample();
    SleepSeconds(idle_seconds / kSamples);
  }
  meter.Checkpoint("idle");
  malloc_trim(0);
  meter.Checkpoint("trimmed");
}

size_t Pick(Random *random, size_t n) {
  return Below(static_cast<uint32_t>(random->Next() >> 32), static_cast<uint32_t>(n));
}

size_t OctaveSize(uint64_t bits, int first, int last) {
  const auto n_octaves = static_cast<uint32_t>(last - first + 1);
  const size_t smallest = size_t{1} << (first + Below(static_cast<uint32_t>(bits >> 32), n_octaves));
  return smallest + Below(static_cast<uint32_t>(bits), static_cast<uint32_t>(smallest));
}

size_t MixedSize(Random *random) {
  const size_t kind = Pick(random, 1000);
  const uint64_t bits = random->Next();
  if (kind < 900) return OctaveSize(bits, 4, 9);
  if (kind < 999) return OctaveSize(bits, 10, 14);
  return OctaveSize(bits, 15, 18);
}

namespace {

enum { kScenario, kScale, kIdle, kThreads, kSeed, kSamples };

struct Scenario {
  const char *name;
  void (*run)(Bench *bench);
  size_t smallest = kSmallestMixedSize;  // of its blocks
  size_t largest = kLargestMixedSize;
};

constexpr Scenario kScenarios[] = {
    {"hello", RunHello},
    {"idle", RunIdle},
    {"steady", RunSteady},
    {"peak-sparse", RunPeakSparse},
    {"peak-empty", RunPeakEmpty},
    {"shift", RunShift},
    {"shift-random", RunShiftRandom},
    {"one-class", RunOneClass, 64, 64},
    {"all-classes", RunAllClasses, 1, 32767},
    {"store", RunStore, 16, 4095},
    {"short-threads", RunShortThreads, 16, 1023},
    {"producers", RunProducers},
    {"threads", RunThreads},
    {"remote-frees", RunRemoteFrees},
};

int Main(int argc, char **argv) {
  const Snapshot at_main = Snapshot::Take();
  // stdio's own buffer would be one more block of the heap that is measured.
  static char output[BUFSIZ];
  setvbuf(stdout, output, _IOLBF, sizeof(output));

  std::vector<const char *> names;
  for (const Scenario &scenario : kScenarios) names.push_back(scenario.name);
  Arguments arguments("Runs one scenario and prints what is resident at its checkpoints.",
                      {Choice("scenario", "what the program does", names),
                       {"scale", "size of the scenario, as a part of what README.md says", 1, 1e-6, 100, true},
                       {"idle", "seconds of idling before another look at what is resident", 3, 0, 86400, true},
                       {"threads", "threads of the scenarios threads, remote-frees and producers", 16, 1, 4096},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295},
                       {"samples", "1 prints lines between the checkpoints too", 0, 0, 1}});
  arguments.Parse(argc, argv);
  const Scenario &scenario = kScenarios[arguments[kScenario].Count()];
  const std::string allocator =
      UseAllocator(arguments.allocator(), argv, SizesToProve(scenario.smallest, scenario.largest));
  printf("Allocator: %s\n", allocator.c_str());
  Meter::PrintHeader();

  Bench bench{arguments[kScale].value,
              arguments[kIdle].value,
              static_cast<uint32_t>(arguments[kThreads].Count()),
              arguments[kSeed].Count(),
              at_main,
              {},
              {&bench.ledger, arguments[kSamples].Count() != 0}};
  scenario.run(&bench);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

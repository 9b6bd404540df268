// A vector that grows by realloc to a given size, while a small block is allocated behind it at every step, as the rest
// of a program would do. Each page is written once, when the vector reaches it.
#include <stdlib.h>

#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kVectors, kMib, kGrowth };

constexpr size_t kNeighbourSize = 64;

int Main(int argc, char **argv) {
  Arguments arguments("Grows a vector by realloc, and drops it.",
                      {{"vectors", "how many, one after the other", 1, 1, 1e9},
                       {"mib", "the final size of each in MiB", 1024, 1, 1 << 20},
                       {"growth", "per cent by which the capacity grows at a time", 50, 1, 1000}});
  arguments.Parse(argc, argv);
  const size_t final_size = arguments[kMib].Count() << 20;
  const double factor = 1 + arguments[kGrowth].value / 100;
  const std::string allocator = UseAllocator(arguments.allocator(), argv, SizesToProve(kNeighbourSize, final_size));

  Measurement measurement;
  for (uint64_t i = 0; i < arguments[kVectors].Count(); ++i) {
    unsigned char *vector = nullptr;
    size_t old_size = 0;
    size_t size = 4096;
    std::vector<unsigned char *> neighbours;
    while (old_size < final_size) {
      vector = static_cast<unsigned char *>(realloc(vector, size));
      if (vector == nullptr) OutOfMemory(size);
      neighbours.push_back(AllocateUsed(kNeighbourSize));
      TouchPages(vector, old_size, size);
      old_size = size;
      size = static_cast<size_t>(static_cast<double>(size) * factor);
      if (size > final_size) size = final_size;
    }
    free(vector);
    for (unsigned char *neighbour : neighbours) Free(neighbour);
  }
  measurement.Stop();
  measurement.Print(allocator, arguments[kVectors].Count() * arguments[kMib].Count());
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

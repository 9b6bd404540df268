// Strings that are built by appending. `exact` asks realloc for every piece, as C programs often do; `doubling` grows
// the capacity as std::string does. Many strings grow at a time, so that the next address is seldom free.
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "bench/allocator.h"
#include "bench/arguments.h"
#include "bench/measure.h"
#include "bench/slot.h"

namespace hak_bench {
namespace {

enum { kGrowth, kAppends, kStrings, kLongest, kSeed };
enum { kExact, kDoubling };

constexpr char kPiece[] = "A piece of text, of which a string takes as many bytes as it needs";
constexpr uint32_t kLongestPiece = sizeof(kPiece) - 1;

struct String {
  void Append(size_t length, bool is_exact) {
    const size_t new_size = size + length;
    if (new_size > capacity) {
      capacity = is_exact ? new_size : (2 * capacity > new_size ? 2 * capacity : new_size);
      text = static_cast<char *>(realloc(text, capacity));
      if (text == nullptr) OutOfMemory(capacity);
    }
    memcpy(text + size, kPiece, length);
    Escape(text);
    size = new_size;
  }

  char *text = nullptr;
  size_t size = 0;
  size_t capacity = 0;
};

int Main(int argc, char **argv) {
  Arguments arguments("Appends pieces of 1 to 66 bytes to random strings by realloc; a long one is dropped.",
                      {Choice("growth", "how the capacity grows", {"exact", "doubling"}),
                       {"appends", "pieces appended in all", 5e6, 1, 1e15},
                       {"strings", "strings that grow at a time", 1000, 1, 1e8},
                       {"longest", "length in bytes at which a string is dropped at the latest", 8192, 1, 1 << 30},
                       {"seed", "seed of the random numbers", 12345, 0, 4294967295}});
  arguments.Parse(argc, argv);
  const size_t longest = arguments[kLongest].Count();
  const bool is_exact = arguments[kGrowth].Count() == kExact;
  // What a string that is about to be dropped may have asked for.
  const size_t largest = (longest + kLongestPiece) * (is_exact ? 1 : 2);
  const std::string allocator = UseAllocator(arguments.allocator(), argv, SizesToProve(1, largest));

  const uint64_t n_appends = arguments[kAppends].Count();
  const auto n_strings = static_cast<uint32_t>(arguments[kStrings].Count());
  Random random(arguments[kSeed].Count());
  std::vector<String> strings(n_strings);
  // Of different lengths, so that they are not all dropped at once.
  std::vector<size_t> limits(n_strings);
  for (size_t &limit : limits) limit = SizeOfAnyMagnitude(&random, 1, longest);
  Measurement measurement;
  for (uint64_t i = 0; i < n_appends; ++i) {
    const Draw draw(&random, n_strings, 1, kLongestPiece);
    String *string = &strings[draw.slot];
    string->Append(draw.size, is_exact);
    if (string->size >= limits[draw.slot]) {
      free(string->text);
      *string = String();
    }
  }
  measurement.Stop();
  for (const String &string : strings) free(string.text);
  measurement.Print(allocator, n_appends);
  return 0;
}

}  // namespace
}  // namespace hak_bench

int main(int argc, char **argv) { return hak_bench::Main(argc, argv); }

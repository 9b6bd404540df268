#include "testing/oracle/tiers.h"

#include "ace/ace.h"
#include "mid/mid.h"
#include "testing/oracle/pool_allocator.h"
#include "tiny/tiny.h"

namespace hak_oracle {
namespace {

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;

//                                 malloc calloc resize check trim wait end free
const std::array<unsigned, kActions> kBlockWeights = {{100, 8, 0, 20, 2, 2, 4, 120}};
const std::array<unsigned, kActions> kExtentWeights = {{70, 20, 40, 20, 4, 6, 4, 92}};

std::vector<Tier> MakeTiers() {
  const std::vector<SizeRange> tiny = {
      {4, 0, 128}, {3, 0, HAK_TINY_SIZE_MAX}, {1, 1, 16}, {1, 1009, HAK_TINY_SIZE_MAX}};
  const std::vector<SizeRange> mid = {{6, HAK_MID_SIZE_MIN, 2 * kKiB},
                                      {5, 2 * kKiB + 1, 8 * kKiB},
                                      {3, 8 * kKiB + 1, HAK_MID_SIZE_MAX},
                                      {1, 0, HAK_MID_SIZE_MIN - 1},
                                      {1, HAK_MID_SIZE_MAX - 15, HAK_MID_SIZE_MAX}};
  const std::vector<SizeRange> ace = {{8, 32 * kKiB + 1, 128 * kKiB},
                                      {6, 128 * kKiB + 1, 512 * kKiB},
                                      {3, 512 * kKiB + 1, HAK_ACE_MAX_BYTES},
                                      {1, 0, 32 * kKiB},
                                      {1, HAK_ACE_MAX_BYTES - 15, HAK_ACE_MAX_BYTES}};
  const std::vector<SizeRange> huge = {
      {8, 2 * kMiB, 4 * kMiB}, {4, 4 * kMiB + 1, 16 * kMiB}, {1, 16 * kMiB + 1, 40 * kMiB}, {1, 0, 2 * kMiB}};
  return {
      {"tiny",
       MakeTiny,
       {4, 16384, tiny, HAK_TINY_SIZE_MAX, kBlockWeights},
       100000,
       {3, 768, tiny, HAK_TINY_SIZE_MAX, kBlockWeights}},
      {"mid", MakeMid, {4, 2048, mid, 16 * kKiB, kBlockWeights}, 100000, {3, 192, mid, 16 * kKiB, kBlockWeights}},
      {"ace",
       MakeAce,
       {4, 128, ace, HAK_ACE_MAX_ALIGNMENT, kExtentWeights},
       10000,
       {3, 24, ace, HAK_ACE_MAX_ALIGNMENT, kExtentWeights}},
      {"huge", MakeHuge, {4, 16, huge, 8 * kMiB, kExtentWeights}, 600, {3, 6, huge, 8 * kMiB, kExtentWeights}},
  };
}

}  // namespace

TierOptions OptionsForSeed(uint64_t seed) {
  static constexpr size_t kPageBytes[] = {4096, 16384, 65536};
  TierOptions options;
  options.page_bytes = kPageBytes[seed % 3];
  options.diet = seed % 4 == 0;
  return options;
}

void PrintTo(const Tier &tier, std::ostream *out) { *out << tier.name; }

const std::vector<Tier> &AllTiers() {
  static const std::vector<Tier> tiers = MakeTiers();
  return tiers;
}

}  // namespace hak_oracle

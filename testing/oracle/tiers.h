// Each tier alone, over the fake operating system and a pool of its own. One at a time exists: the fake is the
// process's.
#ifndef HAKMEM_TESTING_ORACLE_TIERS_H_
#define HAKMEM_TESTING_ORACLE_TIERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "testing/oracle/allocator.h"
#include "testing/oracle/program.h"

namespace hak_oracle {

struct TierOptions {
  size_t page_bytes = 4096;
  bool diet = false;  // as HAKMEM_TINY_MEM_DIET=1
  // Address space may be missing at the end: the test lets unmap fail, and hak_os_map_aligned cannot keep what the
  // system will not take back.
  bool may_leak = false;
  // Lends the pool memory for its metadata, which a pool never gives back: for processes that make many allocators.
  bool lend_metadata = false;
};

// Every page size gets its turn, and every fourth program is on a diet.
TierOptions OptionsForSeed(uint64_t seed);

struct Tier {
  std::string name;
  std::unique_ptr<Allocator> (*make)(const TierOptions &options);
  // Random programs of many operations, and how many keep every tier busy for about as long.
  Profile profile;
  size_t n_operations;
  // Programs of few operations.
  Profile small_profile;
};

// For GoogleTest's messages.
void PrintTo(const Tier &tier, std::ostream *out);

// tiny, mid, ace and huge.
const std::vector<Tier> &AllTiers();

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_TIERS_H_

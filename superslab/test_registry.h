// For the tests of who maps memory: what the registry holds for it.
#ifndef HAKMEM_SUPERSLAB_TEST_REGISTRY_H_
#define HAKMEM_SUPERSLAB_TEST_REGISTRY_H_

#include <cstddef>
#include <cstdint>

#include "superslab/registry.h"

namespace hak_test {

// The covers that were not ended, of the whole process.
inline uint64_t CountCovers() {
  uint64_t count = 0;
  for (uint64_t i = 0; i < HAK_REGIONS; ++i) {
    if (hak_load_relaxed(&hak_registry.region_offset[i]) == 0) continue;
    const hak_region *region = hak_region_of(i << HAK_REGION_SHIFT);
    for (const hak_superslab_slot &superslab : region->superslab) count += superslab.n_covers;
  }
  return count;
}

}  // namespace hak_test

#endif  // HAKMEM_SUPERSLAB_TEST_REGISTRY_H_

// Micro-benchmarks of Mid alone, without the router.
#include "bench/tier_benchmark.h"
#include "heap/block_tier_benchmark.h"
#include "mid/mid.h"

namespace {

using Mid = hak_bench::BlockTier<hak_mid_malloc, hak_mid_free>;
const bool registered = hak_bench::RegisterTier<Mid>("mid", {1025, 4096, 16 << 10, 32 << 10});

}  // namespace

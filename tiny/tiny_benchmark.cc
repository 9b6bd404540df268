// Micro-benchmarks of Tiny alone, without the router.
#include "bench/tier_benchmark.h"
#include "heap/block_tier_benchmark.h"
#include "tiny/tiny.h"

namespace {

using Tiny = hak_bench::BlockTier<hak_tiny_malloc, hak_tiny_free>;
const bool registered = hak_bench::RegisterTier<Tiny>("tiny", {8, 64, 256, 1024});

}  // namespace

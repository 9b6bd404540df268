// Micro-benchmarks of the composed allocator, called by name: size to tier, address to owner, and the tier behind them.
#include "bench/tier_benchmark.h"
#include "router/hakmem.h"

namespace {

class Router {
 public:
  void *Allocate(size_t size) { return hak_malloc(size); }
  void Free(void *block) { hak_free(block); }
};

// Two sizes of each tier: a usual one, and the largest.
const bool registered = hak_bench::RegisterTier<Router>(
    "router", {64, 1024, 4096, 32 << 10, 256 << 10, (2 << 20) - 4096, 2 << 20, 32 << 20});

// What an owner query costs: one look into the registry.
void Owner(benchmark::State &state) {
  void *block = hak_malloc(64);
  for (auto _ : state) benchmark::DoNotOptimize(hak_owner(block));
  hak_free(block);
}
BENCHMARK(Owner)->Name("router/owner");

}  // namespace

// UseAllocator() for programs with hakmem linked in: there is nothing to preload, only to prove.
#include <stdio.h>

#include "bench/allocator.h"
#include "router/hakmem.h"

namespace hak_bench {

const char kAllocatorHelp[] = "hakmem only: it is linked in";

std::string UseAllocator(const std::string &name, char **, const std::vector<size_t> &sizes) {
  if (name != "hakmem") {
    fprintf(stderr, "allocator %s: this program has hakmem linked in and measures nothing else\n", name.c_str());
    exit(kExitNotProved);
  }
  std::string proof;
  for (size_t size : sizes) {
    void *block = Malloc(size);
    const char *tier = hak_owner(block);
    if (tier == nullptr) {
      fprintf(stderr, "allocator hakmem: hak_owner does not know the block of %zu B at %p\n", size, block);
      exit(kExitNotProved);
    }
    proof += std::string(proof.empty() ? "" : ", ") + tier + " for " + std::to_string(size) + " B";
    Free(block);
  }
  return "hakmem, linked in (proved: hak_owner says " + proof + ")";
}

}  // namespace hak_bench

#include "testing/oracle/shadow_heap.h"

#include <iterator>

namespace hak_oracle {
namespace {

uintptr_t StartOf(const Block &block) { return reinterpret_cast<uintptr_t>(block.p); }

}  // namespace

absl::optional<Block> ShadowHeap::Add(const Block &block) {
  auto after = blocks_.lower_bound(StartOf(block));
  if (after != blocks_.end() && after->first - StartOf(block) < block.usable) return after->second;
  if (after != blocks_.begin()) {
    const Block &before = std::prev(after)->second;
    if (StartOf(block) - StartOf(before) < before.usable) return before;
  }
  blocks_.emplace_hint(after, StartOf(block), block);
  return absl::nullopt;
}

void ShadowHeap::Remove(const Block &block) { blocks_.erase(StartOf(block)); }

}  // namespace hak_oracle

#include "testing/oracle/shadow_heap.h"

#include <algorithm>
#include <iterator>

namespace hak_oracle {
namespace {

uintptr_t StartOf(const Block &block) { return reinterpret_cast<uintptr_t>(block.p); }

// A block of no bytes has an address of its own nevertheless.
size_t BytesOf(const Block &block) { return std::max<size_t>(block.usable, 1); }

}  // namespace

absl::optional<Block> ShadowHeap::Add(const Block &block) {
  auto after = blocks_.lower_bound(StartOf(block));
  if (after != blocks_.end() && after->first - StartOf(block) < BytesOf(block)) return after->second;
  if (after != blocks_.begin()) {
    const Block &before = std::prev(after)->second;
    if (StartOf(block) - StartOf(before) < BytesOf(before)) return before;
  }
  blocks_.emplace_hint(after, StartOf(block), block);
  return absl::nullopt;
}

void ShadowHeap::Remove(const Block &block) { blocks_.erase(StartOf(block)); }

}  // namespace hak_oracle

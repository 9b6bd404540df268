// The shadow of a heap: where its live blocks are.
#ifndef HAKMEM_TESTING_ORACLE_SHADOW_HEAP_H_
#define HAKMEM_TESTING_ORACLE_SHADOW_HEAP_H_

#include <cstddef>
#include <cstdint>

#include "absl/container/btree_map.h"
#include "absl/types/optional.h"

namespace hak_oracle {

struct Block {
  char *p = nullptr;  // nullptr: no block
  size_t size = 0;    // as asked for
  size_t usable = 0;
  uint64_t number = 0;  // of the operation that made it
};

class ShadowHeap {
 public:
  // Adds a block. If it overlaps another one, that one, and nothing has changed.
  absl::optional<Block> Add(const Block &block);

  // Removes a block that was added.
  void Remove(const Block &block);

  void Clear() { blocks_.clear(); }

 private:
  absl::btree_map<uintptr_t, Block> blocks_;
};

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_SHADOW_HEAP_H_

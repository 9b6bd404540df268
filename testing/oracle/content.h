// What the oracle writes into blocks: bytes that follow from a seed and the block's number, so that a byte of another
// block, of an earlier life of the same memory or of another place in the block is recognised.
#ifndef HAKMEM_TESTING_ORACLE_CONTENT_H_
#define HAKMEM_TESTING_ORACLE_CONTENT_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/optional.h"

namespace hak_oracle {

// The content of one block. The first 32 KiB and the last 64 bytes are used in full; of what lies between, 64 bytes in
// each 4 KiB, and beyond 1 MiB in each 64 KiB, at places that differ from block to block: so large blocks are cheap,
// and all places get their turn.
class Content {
 public:
  Content(uint64_t seed, uint64_t block_number);

  // Writes the content of a block of `bytes` bytes.
  void Fill(void *p, size_t bytes) const;

  // The first byte within the first `prefix` bytes at `p` that is not as it was filled for a block of `bytes` bytes.
  absl::optional<size_t> FirstDifference(const void *p, size_t bytes, size_t prefix) const;

 private:
  // Calls visit(offset, length) for each stretch that is used, until it returns false.
  template <typename Visit>
  void ForEachStretch(size_t bytes, Visit visit) const;

  // What the bytes from `offset` to the next multiple of 4 KiB should be.
  const unsigned char *Expected(size_t offset) const;

  uint64_t number_;
};

// The first byte of `bytes` bytes at `p` that is not zero.
absl::optional<size_t> FirstNonZero(const void *p, size_t bytes);

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_CONTENT_H_

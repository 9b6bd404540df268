// Blocks in use, for benches: what is allocated is written to, and may be verified before it is freed.
#ifndef HAKMEM_BENCH_SLOT_H_
#define HAKMEM_BENCH_SLOT_H_

#include <cstddef>
#include <cstdint>

#include "bench/allocator.h"
#include "bench/measure.h"

namespace hak_bench {

// Ends the process with status 1 and one line that names the request: a bench without memory has nothing to report.
[[noreturn]] void OutOfMemory(size_t size);

// Writes one byte of every page's worth of `block` from `begin` on, so that its pages are backed as they would be in a
// program that uses it.
inline void TouchPages(unsigned char *block, size_t begin, size_t end) {
  constexpr size_t kPage = 4096;
  for (size_t i = begin; i < end; i += kPage) block[i] = 1;
  Escape(block);
}

// A block of `size` bytes, at least 1, of which the first is written.
inline unsigned char *AllocateUsed(size_t size) {
  auto *block = static_cast<unsigned char *>(Malloc(size));
  if (block == nullptr) OutOfMemory(size);
  *block = 1;
  Escape(block);
  return block;
}

// A block whose first and last byte carry a mark of the slot that holds it, so that each block is touched and a block
// that was handed out twice, or overwritten, can be recognised.
struct Slot {
  void Fill(void *new_block, size_t new_size) {
    block = static_cast<unsigned char *>(new_block);
    size = new_size;
    block[0] = Mark();
    block[size - 1] = Mark();
    Escape(block);
  }
  void Allocate(size_t new_size) {
    void *new_block = Malloc(new_size);
    if (new_block == nullptr) OutOfMemory(new_size);
    Fill(new_block, new_size);
  }
  bool IsIntact() const { return block[0] == Mark() && block[size - 1] == Mark(); }
  unsigned char Mark() const {
    return static_cast<unsigned char>((reinterpret_cast<uintptr_t>(this) * 0x9e3779b97f4a7c15u) >> 56);
  }

  unsigned char *block = nullptr;
  size_t size = 0;
};

// Ends the process with status 1 and one line about the slot whose marks have changed.
[[noreturn]] void Corrupted(const Slot &slot);

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_SLOT_H_

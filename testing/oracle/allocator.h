// An allocator as the oracle sees it: any tier alone, the router, or the process's own malloc.
#ifndef HAKMEM_TESTING_ORACLE_ALLOCATOR_H_
#define HAKMEM_TESTING_ORACLE_ALLOCATOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace hak_oracle {

// One thread of a program. Made, used and destroyed by the operating system's thread that it stands for; its
// destruction is the thread's end.
class AllocatorThread {
 public:
  virtual ~AllocatorThread() = default;

  // A block at a multiple of `alignment`, a power of two; nullptr when memory has run out.
  virtual void *Malloc(size_t size, size_t alignment) = 0;

  // A block of which the first *zero_bytes must be zero: all that calloc promises, or nothing where a tier that may
  // tell its blocks' state says that it does not know.
  virtual void *Calloc(size_t size, size_t *zero_bytes) = 0;

  // The block at `p` with a new size, 1 or more, perhaps elsewhere. nullptr if that is impossible: `p` stays as it was.
  virtual void *Resize(void *p, size_t size) = 0;

  virtual void Free(void *p) = 0;
  virtual size_t UsableSize(const void *p) = 0;

  // Gives unused memory but `keep_bytes` back to the operating system.
  virtual void Trim(size_t keep_bytes) = 0;

  // Lets time pass, where the clock is the test's.
  virtual void Wait(uint64_t ms) = 0;
};

class Allocator {
 public:
  virtual ~Allocator() = default;

  // Any thread.
  virtual std::unique_ptr<AllocatorThread> StartThread() = 0;

  // What every block is aligned to.
  virtual size_t min_alignment() const = 0;

  // Whether Resize fails only when memory has run out, as realloc does, and not where a block cannot grow in place.
  virtual bool always_resizes() const = 0;

  // Whether the block at `p` is this allocator's.
  virtual bool Owns(const void *p) const = 0;

  // Fails the test if anything is still held. All blocks were freed and all threads have ended.
  virtual void CheckNothingHeld() = 0;
};

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_ALLOCATOR_H_

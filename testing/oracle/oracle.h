// The oracle: runs programs on an allocator and checks every answer against a shadow of the heap.
//
// After each operation that allocates: the block is aligned, its usable size is at least what was asked for, it lies
// apart from all other live blocks, it is zero where that was promised; then all of its usable bytes are written.
// Before each operation that ends or changes a block's life: its content and usable size are as they were. A resized
// block has kept its content up to the smaller of both sizes.
#ifndef HAKMEM_TESTING_ORACLE_ORACLE_H_
#define HAKMEM_TESTING_ORACLE_ORACLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "testing/oracle/allocator.h"
#include "testing/oracle/program.h"
#include "testing/oracle/shadow_heap.h"

namespace hak_oracle {

class Oracle {
 public:
  // `allocator` outlives the oracle. `seed` decides the blocks' content.
  Oracle(Allocator *allocator, const Profile &profile, uint64_t seed);

  // Whether the allocator may answer nullptr, since the test lets it run out of memory; at first it may not.
  void set_may_refuse(bool may_refuse) { may_refuse_ = may_refuse; }

  // Executes the operations one after the other in this thread: which of the program's threads each belongs to is known
  // to the allocator alone. Deterministic. All of the program's threads have ended afterwards.
  void RunInTurn(const Program &program);

  // Executes the operations in one thread of the operating system for each of the program's. Each thread keeps the
  // program's order, and so do the operations on each slot, whose blocks are thereby handed from thread to thread; all
  // else is left to the scheduler. What each operation does is deterministic, and so is who frees what.
  //
  // That blocks lie apart is checked at the end, for all of them. In between their content shows it: a lock over a
  // common list of blocks would put the allocator's calls in an order, and hide its races from ThreadSanitizer.
  void RunConcurrently(const Program &program);

  // Frees what the programs have left, in another thread than theirs.
  void FreeAll();

  // Of all programs so far: blocks handed out, and requests refused.
  size_t n_served() const { return n_served_; }
  size_t n_refused() const { return n_refused_; }

 private:
  struct Slot {
    Block block;
    std::atomic<uint32_t> turn{0};  // of RunConcurrently: operations on this slot that are done
  };

  // One operation under way.
  struct Step {
    const Operation &operation;
    uint64_t number;  // counted over all programs of this oracle
    AllocatorThread &thread;
  };

  [[noreturn]] static void FailAt(const Step &step, absl::string_view what);

  void Execute(const Step &step);  // all but kEndThread
  void ExecuteOnSlot(const Step &step);
  void Allocate(const Step &step, Block *block);
  void Resize(const Step &step, Block *block);
  void Free(const Step &step, Block *block);

  // Makes the memory at `p`, which the allocator has just handed out, the slot's block.
  void Accept(const Step &step, Block *block, void *p, size_t alignment);
  void Refused(const Step &step);
  void CheckIntact(const Step &step, const Block &block);
  void CheckPrefix(const Step &step, const Block &was, const void *p, size_t prefix);

  static bool UsesSlot(Action action);
  void RunThread(const Program &program, const std::vector<size_t> &mine, const std::vector<uint32_t> &turns);

  Allocator *const allocator_;
  const uint64_t seed_;
  bool may_refuse_ = false;
  std::vector<Slot> slots_;
  bool concurrent_ = false;
  ShadowHeap shadow_;  // of the blocks in slots_, but while a program runs concurrently
  uint64_t n_operations_ = 0;
  std::atomic<size_t> n_served_{0};
  std::atomic<size_t> n_refused_{0};
};

// Runs a random program by `run`, one of the oracle's ways to do so; then frees everything and checks that the
// allocator holds nothing. The number of blocks that it handed out.
size_t RunRandomProgram(Allocator *allocator, const Profile &profile, uint64_t seed, size_t n_operations,
                        void (Oracle::*run)(const Program &));

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_ORACLE_H_

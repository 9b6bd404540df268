#include "testing/oracle/oracle.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "testing/oracle/content.h"
#include "testing/oracle/failure.h"

namespace hak_oracle {
namespace {

std::string ToString(const Block &block) {
  return absl::StrFormat("block %d (%d bytes at %p, %d usable)", block.number, block.size, block.p, block.usable);
}

}  // namespace

Oracle::Oracle(Allocator *allocator, const Profile &profile, uint64_t seed)
    : allocator_(allocator), seed_(seed), slots_(profile.n_slots) {}

void Oracle::FailAt(const Step &step, absl::string_view what) {
  Fail(absl::StrCat("operation ", step.number, " (", hak_oracle::ToString(step.operation), "): ", what));
}

// Checks

void Oracle::CheckPrefix(const Step &step, const Block &was, const void *p, size_t prefix) {
  absl::optional<size_t> at = Content(seed_, was.number).FirstDifference(p, was.usable, prefix);
  if (at.has_value()) {
    FailAt(step, absl::StrFormat("content lost at byte %d of %s, now at %p", *at, ToString(was), p));
  }
}

void Oracle::CheckIntact(const Step &step, const Block &block) {
  const size_t usable = step.thread.UsableSize(block.p);
  if (usable != block.usable) FailAt(step, absl::StrCat("usable size of ", ToString(block), " is now ", usable));
  CheckPrefix(step, block, block.p, block.usable);
}

void Oracle::Accept(const Step &step, Block *block, void *p, size_t alignment) {
  n_served_.fetch_add(1, std::memory_order_relaxed);
  if (!allocator_->Owns(p)) FailAt(step, absl::StrFormat("%p belongs to another allocator", p));
  *block = {static_cast<char *>(p), step.operation.size, step.thread.UsableSize(p), step.number};
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0) {
    FailAt(step, absl::StrCat(ToString(*block), " is not aligned to ", alignment));
  }
  if (block->usable < block->size) FailAt(step, absl::StrCat("usable size too small: ", ToString(*block)));
  if (concurrent_) return;
  absl::optional<Block> other = shadow_.Add(*block);
  if (other.has_value()) FailAt(step, absl::StrCat(ToString(*block), " overlaps ", ToString(*other)));
}

void Oracle::Refused(const Step &step) {
  n_refused_.fetch_add(1, std::memory_order_relaxed);
  if (!may_refuse_) FailAt(step, "refused, although memory is left");
}

// Operations

void Oracle::Allocate(const Step &step, Block *block) {
  const Operation &operation = step.operation;
  const bool zeroed = operation.action == Action::kCalloc;
  size_t zero_bytes = 0;
  void *p = zeroed ? step.thread.Calloc(operation.size, &zero_bytes)
                   : step.thread.Malloc(operation.size, operation.alignment);
  if (p == nullptr) {
    Refused(step);
    return;
  }
  Accept(step, block, p, std::max(allocator_->min_alignment(), zeroed ? 1 : operation.alignment));
  absl::optional<size_t> at = FirstNonZero(p, std::min(zero_bytes, block->usable));
  if (at.has_value()) FailAt(step, absl::StrCat("byte ", *at, " of ", ToString(*block), " is not zero"));
  Content(seed_, block->number).Fill(block->p, block->usable);
}

void Oracle::Resize(const Step &step, Block *block) {
  CheckIntact(step, *block);
  const Block was = *block;
  void *p = step.thread.Resize(was.p, std::max<size_t>(step.operation.size, 1));
  if (p == nullptr) {
    if (allocator_->always_resizes()) Refused(step);
    CheckIntact(step, was);
    return;
  }
  if (!concurrent_) shadow_.Remove(was);
  Accept(step, block, p, allocator_->min_alignment());
  CheckPrefix(step, was, p, std::min(was.size, block->size));
  Content(seed_, block->number).Fill(block->p, block->usable);
}

void Oracle::Free(const Step &step, Block *block) {
  CheckIntact(step, *block);
  if (!concurrent_) shadow_.Remove(*block);
  step.thread.Free(block->p);
  *block = Block();
}

void Oracle::Execute(const Step &step) {
  if (step.operation.action == Action::kTrim) {
    step.thread.Trim(step.operation.size);
  } else if (step.operation.action == Action::kWait) {
    step.thread.Wait(step.operation.size);
  } else {
    ExecuteOnSlot(step);
  }
}

void Oracle::ExecuteOnSlot(const Step &step) {
  const Action action = step.operation.action;
  Block *block = &slots_[step.operation.slot].block;
  if (action == Action::kMalloc || action == Action::kCalloc) {
    if (block->p != nullptr) Free(step, block);
    Allocate(step, block);
  } else if (block->p == nullptr) {
    return;
  } else if (action == Action::kResize) {
    Resize(step, block);
  } else if (action == Action::kCheck) {
    CheckIntact(step, *block);
  } else {
    Free(step, block);
  }
}

// Programs

void Oracle::RunInTurn(const Program &program) {
  std::vector<std::unique_ptr<AllocatorThread>> threads;
  for (const Operation &operation : program) {
    ++n_operations_;
    if (threads.size() <= operation.thread) threads.resize(operation.thread + 1);
    std::unique_ptr<AllocatorThread> &thread = threads[operation.thread];
    if (operation.action == Action::kEndThread) {
      thread.reset();
      continue;
    }
    if (thread == nullptr) thread = allocator_->StartThread();
    Execute({operation, n_operations_, *thread});
  }
}

bool Oracle::UsesSlot(Action action) {
  return action != Action::kTrim && action != Action::kWait && action != Action::kEndThread;
}

void Oracle::RunThread(const Program &program, const std::vector<size_t> &mine, const std::vector<uint32_t> &turns) {
  std::unique_ptr<AllocatorThread> thread = allocator_->StartThread();
  for (size_t index : mine) {
    const Step step = {program[index], n_operations_ + index + 1, *thread};
    if (!UsesSlot(step.operation.action)) {
      Execute(step);
      continue;
    }
    std::atomic<uint32_t> &turn = slots_[step.operation.slot].turn;
    // Acquire and release: the block is handed over as a program would.
    while (turn.load(std::memory_order_acquire) != turns[index]) std::this_thread::yield();
    Execute(step);
    turn.store(turns[index] + 1, std::memory_order_release);
  }
}

void Oracle::RunConcurrently(const Program &program) {
  // By thread, the operations of each of its lives.
  std::vector<std::vector<std::vector<size_t>>> lives;
  std::vector<uint32_t> turns(program.size());
  std::vector<uint32_t> next_turn(slots_.size());
  for (size_t index = 0; index < program.size(); ++index) {
    const Operation &operation = program[index];
    if (lives.size() <= operation.thread) lives.resize(operation.thread + 1, {{}});
    if (operation.action == Action::kEndThread) {
      lives[operation.thread].emplace_back();
    } else {
      lives[operation.thread].back().push_back(index);
    }
    if (UsesSlot(operation.action)) turns[index] = next_turn[operation.slot]++;
  }

  concurrent_ = true;
  for (Slot &slot : slots_) slot.turn = 0;
  std::vector<std::thread> threads;
  for (const auto &lives_of_thread : lives) {
    threads.emplace_back([&] {
      for (const auto &life : lives_of_thread) std::thread([&] { RunThread(program, life, turns); }).join();
    });
  }
  for (std::thread &thread : threads) thread.join();
  concurrent_ = false;
  n_operations_ += program.size();

  shadow_.Clear();
  for (const Slot &slot : slots_) {
    if (slot.block.p == nullptr) continue;
    absl::optional<Block> other = shadow_.Add(slot.block);
    if (other.has_value()) Fail(absl::StrCat(ToString(slot.block), " overlaps ", ToString(*other)));
  }
}

void Oracle::FreeAll() {
  Program program;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    program.push_back({Action::kFree, 0, static_cast<uint16_t>(slot), 0, 0});
  }
  RunInTurn(program);
}

size_t RunRandomProgram(Allocator *allocator, const Profile &profile, uint64_t seed, size_t n_operations,
                        void (Oracle::*run)(const Program &)) {
  Oracle oracle(allocator, profile, seed);
  (oracle.*run)(RandomProgram(seed, n_operations, profile));
  oracle.FreeAll();
  allocator->CheckNothingHeld();
  return oracle.n_served();
}

}  // namespace hak_oracle

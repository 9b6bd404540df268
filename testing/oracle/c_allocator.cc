#include "testing/oracle/c_allocator.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "testing/oracle/failure.h"

namespace hak_oracle {
namespace {

constexpr size_t kBlockAlignment = 16;
constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;

// Watches errno from its construction on.
class ErrnoCheck {
 public:
  ErrnoCheck() { errno = kBefore; }

  // Success keeps errno, and failure sets it to ENOMEM. Returns `result`, the pointer that the allocator has answered.
  void *Checked(void *result) const {
    Expect(result != nullptr ? kBefore : ENOMEM);
    return result;
  }

  void ExpectKept() const { Expect(kBefore); }

 private:
  static void Expect(int expected) {
    if (errno != expected) Fail(absl::StrCat("errno is ", errno, ", not ", expected));
  }

  static constexpr int kBefore = EXDEV;  // which no allocator sets
};

class CThread : public AllocatorThread {
 public:
  explicit CThread(const CFunctions &functions) : functions_(functions) {}

  void *Malloc(size_t size, size_t alignment) override {
    const ErrnoCheck check;
    if (alignment <= kBlockAlignment) return check.Checked(functions_.malloc(size));
    if (size % 2 == 0) return check.Checked(functions_.aligned_alloc(alignment, size));
    void *p = nullptr;
    const int error = functions_.posix_memalign(&p, alignment, size);
    check.ExpectKept();
    if (error != (p == nullptr ? ENOMEM : 0)) Fail(absl::StrCat("posix_memalign returns ", error));
    return p;
  }

  void *Calloc(size_t size, size_t *zero_bytes) override {
    *zero_bytes = size;
    const ErrnoCheck check;
    const size_t n = size % 3 == 0 ? 3 : 1;
    return check.Checked(functions_.calloc(n, size / n));
  }

  void *Resize(void *p, size_t size) override {
    const ErrnoCheck check;
    return check.Checked(functions_.realloc(p, size));
  }

  void Free(void *p) override {
    const ErrnoCheck check;
    functions_.free(p);
    check.ExpectKept();
  }

  size_t UsableSize(const void *p) override { return functions_.usable_size(p); }

  void Trim(size_t keep_bytes) override { functions_.trim(keep_bytes); }

  void Wait(uint64_t ms) override {
    if (functions_.wait != nullptr) functions_.wait(ms);
  }

 private:
  const CFunctions &functions_;
};

class CAllocator : public Allocator {
 public:
  explicit CAllocator(const CFunctions &functions) : functions_(functions) {}

  std::unique_ptr<AllocatorThread> StartThread() override { return std::make_unique<CThread>(functions_); }

  size_t min_alignment() const override { return kBlockAlignment; }
  bool always_resizes() const override { return true; }

  bool Owns(const void *p) const override { return functions_.owner(p) != nullptr; }

  void CheckNothingHeld() override { functions_.check_nothing_held(); }

 private:
  const CFunctions functions_;
};

//                                 malloc calloc resize check trim wait end free
const std::array<unsigned, kActions> kWeights = {{80, 14, 40, 16, 1, 0, 3, 102}};

Profile ProfileFor(size_t n_threads, size_t n_slots) {
  return {n_threads,
          n_slots,
          {{128, 0, 1 * kKiB},
           {16, 1 * kKiB - 8, 1 * kKiB + 8},
           {80, 1 * kKiB, 32 * kKiB},
           {10, 32 * kKiB - 8, 32 * kKiB + 8},
           {16, 32 * kKiB, 256 * kKiB},
           {3, 256 * kKiB, 2 * kMiB},
           {2, 2 * kMiB - 8, 2 * kMiB + 8},
           {1, 2 * kMiB, 8 * kMiB}},
          4 * kMiB,
          kWeights};
}

}  // namespace

std::unique_ptr<Allocator> MakeCAllocator(const CFunctions &functions) {
  return std::make_unique<CAllocator>(functions);
}

Profile AllTiersProfile() { return ProfileFor(4, 2048); }
Profile SmallAllTiersProfile() { return ProfileFor(3, 96); }

}  // namespace hak_oracle

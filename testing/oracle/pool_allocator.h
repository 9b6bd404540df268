// What the tiers have in common: a pool over the fake operating system.
#ifndef HAKMEM_TESTING_ORACLE_POOL_ALLOCATOR_H_
#define HAKMEM_TESTING_ORACLE_POOL_ALLOCATOR_H_

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "superslab/pool.h"
#include "testing/oracle/allocator.h"
#include "testing/oracle/tiers.h"

namespace hak_oracle {

class PoolAllocator : public Allocator {
 public:
  explicit PoolAllocator(const TierOptions &options);
  ~PoolAllocator() override;
  PoolAllocator(const PoolAllocator &) = delete;
  PoolAllocator &operator=(const PoolAllocator &) = delete;

  bool always_resizes() const override { return false; }
  void CheckNothingHeld() final;

  hak_pool *pool() { return &pool_; }

 protected:
  // Gives all that is free back to the pool, and fails the test if the tier holds anything then.
  virtual void ReturnAll() = 0;

  const TierOptions options_;

 private:
  struct FreeMemory {
    void operator()(char *p) const { std::free(p); }
  };

  hak_pool pool_;
  std::unique_ptr<char, FreeMemory> metadata_;
};

std::unique_ptr<Allocator> MakeTiny(const TierOptions &options);
std::unique_ptr<Allocator> MakeMid(const TierOptions &options);
std::unique_ptr<Allocator> MakeAce(const TierOptions &options);
std::unique_ptr<Allocator> MakeHuge(const TierOptions &options);

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_POOL_ALLOCATOR_H_

// An allocator with the functions of C: the router by its own names, or the process's malloc.
//
// A thread of a program is the thread that makes the calls; where one thread executes several in turn, they are one to
// the allocator (own_threads.h makes them several).
#ifndef HAKMEM_TESTING_ORACLE_C_ALLOCATOR_H_
#define HAKMEM_TESTING_ORACLE_C_ALLOCATOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "testing/oracle/allocator.h"
#include "testing/oracle/program.h"

namespace hak_oracle {

struct CFunctions {
  void *(*malloc)(size_t size);
  void *(*calloc)(size_t n, size_t size);
  void *(*realloc)(void *p, size_t size);
  void *(*aligned_alloc)(size_t alignment, size_t size);
  int (*posix_memalign)(void **out, size_t alignment, size_t size);
  void (*free)(void *p);
  size_t (*usable_size)(const void *p);
  size_t (*trim)(size_t keep_bytes);
  const char *(*owner)(const void *p);  // the tier, or NULL if not hakmem's
  void (*check_nothing_held)();
  void (*wait)(uint64_t ms);  // where the clock is the test's; else NULL
};

std::unique_ptr<Allocator> MakeCAllocator(const CFunctions &functions);

// Programs over all tiers, and those of few operations.
Profile AllTiersProfile();
Profile SmallAllTiersProfile();

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_C_ALLOCATOR_H_

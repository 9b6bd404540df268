// For allocators that know a thread by the thread that calls: gives each thread of a program one of its own, also where
// the program is executed in turn.
#ifndef HAKMEM_TESTING_ORACLE_OWN_THREADS_H_
#define HAKMEM_TESTING_ORACLE_OWN_THREADS_H_

#include <memory>

#include "testing/oracle/allocator.h"

namespace hak_oracle {

// An allocator whose every call is made by a thread of the operating system that lives as long as its AllocatorThread.
// Cost: two context switches a call.
std::unique_ptr<Allocator> InOwnThreads(std::unique_ptr<Allocator> allocator);

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_OWN_THREADS_H_

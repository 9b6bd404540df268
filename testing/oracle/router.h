// The router, called by name.
#ifndef HAKMEM_TESTING_ORACLE_ROUTER_H_
#define HAKMEM_TESTING_ORACLE_ROUTER_H_

#include <cstdint>
#include <memory>

#include "testing/oracle/allocator.h"

namespace hak_oracle {

// `wait` lets time pass where the router is composed over an operating system whose clock is the test's.
std::unique_ptr<Allocator> MakeRouter(void (*wait)(uint64_t ms) = nullptr);

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_ROUTER_H_

// The router, called by name.
#ifndef HAKMEM_TESTING_ORACLE_ROUTER_H_
#define HAKMEM_TESTING_ORACLE_ROUTER_H_

#include <memory>

#include "testing/oracle/allocator.h"

namespace hak_oracle {

std::unique_ptr<Allocator> MakeRouter();

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_ROUTER_H_

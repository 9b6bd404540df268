// For tests: what the kernel says of the process's memory as a whole.
#ifndef HAKMEM_ROUTER_ROLLUP_H_
#define HAKMEM_ROUTER_ROLLUP_H_

#include <cstddef>
#include <fstream>
#include <string>

namespace hak_test {

// A field of /proc/self/smaps_rollup, as "Rss:", in bytes; 0 if there is none.
inline size_t RollupBytes(const std::string &field) {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string word; rollup >> word;) {
    size_t kib;
    if (word == field && rollup >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace hak_test

#endif  // HAKMEM_ROUTER_ROLLUP_H_

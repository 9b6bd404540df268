// The allocator under test: how a bench gets the malloc it was asked for, and proves that it got it.
//
// A bench calls plain malloc and free. UseAllocator() runs the program again with LD_PRELOAD of the chosen library and
// then asks for the owner of real blocks, since a preload that fails does so silently and leaves libc to be measured.
#ifndef HAKMEM_BENCH_ALLOCATOR_H_
#define HAKMEM_BENCH_ALLOCATOR_H_

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <vector>

// Set by the target //bench:larson_linked, which has hakmem linked in and calls it by name: sanitizers bring a malloc
// of their own, so nothing can be preloaded there.
#ifndef HAK_BENCH_LINKED
#define HAK_BENCH_LINKED 0
#endif
#if HAK_BENCH_LINKED
#include "router/hakmem.h"
#endif

namespace hak_bench {

// Ends the process when the allocator is missing or is not the one that was asked for.
constexpr int kExitNotProved = 3;

// What --allocator accepts, for help texts.
extern const char kAllocatorHelp[];

// Makes `name` (hakmem, glibc, jemalloc, mimalloc, tcmalloc, limit, or the path of a library that defines malloc; one
// with a slash or .so in it) this process's malloc and returns one line that says which library it is and how that was
// proved for blocks of each of `sizes` bytes (of 32 MiB for larger ones). Where the library is missing or the proof
// fails: one line on stderr and exit status 3. To be called once, from main, before any thread is started and before
// anything is printed: unless the library is already in place it executes the program anew with the same `argv`.
std::string UseAllocator(const std::string &name, char **argv, const std::vector<size_t> &sizes);

// The sizes to prove the allocator for where blocks have `smallest` to `largest` bytes: both, and the middle magnitude.
inline std::vector<size_t> SizesToProve(size_t smallest, size_t largest) {
  if (smallest == largest) return {smallest};
  const double middle = std::sqrt(static_cast<double>(smallest) * static_cast<double>(largest));
  return {smallest, static_cast<size_t>(middle), largest};
}

// The calls that are measured: malloc and free themselves, or hak_malloc and hak_free where hakmem is linked in.
#if HAK_BENCH_LINKED
inline void *Malloc(size_t size) { return hak_malloc(size); }
inline void Free(void *p) { hak_free(p); }
#else
inline void *Malloc(size_t size) { return std::malloc(size); }
inline void Free(void *p) { std::free(p); }
#endif

}  // namespace hak_bench

#endif  // HAKMEM_BENCH_ALLOCATOR_H_

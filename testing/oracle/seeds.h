// The seeds of a test's programs, and the flags --seed (the first) and --programs (how many).
#ifndef HAKMEM_TESTING_ORACLE_SEEDS_H_
#define HAKMEM_TESTING_ORACLE_SEEDS_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"

namespace hak_oracle {

// Runs the current test's program with each seed; first announces the command that repeats this one alone.
void ForEachSeed(size_t n_programs, absl::FunctionRef<void(uint64_t seed)> run);

// main of a test program: parses GoogleTest's flags and those above, and runs all tests.
int RunTests(int argc, char **argv);

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_SEEDS_H_

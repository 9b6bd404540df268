// Runs programs on the preload library and looks at what comes out.
//
// The library is data of the test, found relative to the working directory that Bazel gives: //preload:libhakmem.so, or
// what HAK_TEST_LIBRARY names ("preload/libhakmem-hardened.so").
#ifndef HAKMEM_PRELOAD_TEST_PROCESS_H_
#define HAKMEM_PRELOAD_TEST_PROCESS_H_

#include <string>
#include <vector>

namespace hak_test {

// The absolute path of a file that the test has as data; ends the test program if it is not there.
std::string DataFile(const std::string &workspace_path);

// Whether the library under test is the hardened one.
bool IsHardened();

// Makes libhakmem.so this process's malloc: executes the program anew with the same arguments unless it is in place.
// To be called first in main. Ends the program if the library does not serve malloc afterwards.
void RunOnHakmem(char **argv);

// hak_owner(p) of the preloaded library: "tiny", "mid", "ace", "huge" or "" (not hakmem's).
std::string Owner(const void *p);

// From now on the process gets no address space, until operator new calls its handler, once: that lifts the limit,
// which stands for freeing memory. Ends the test program if that cannot be.
void RefuseMemoryUntilNewHandler();

struct Outcome {
  int exit_status = -1;  // -1: ended by a signal
  int signal = 0;        // 0: exited
  std::string out;
  std::string err;
};

// Runs `argv` with libhakmem.so preloaded and the variables `environment` ("NAME=value") added; no other HAKMEM_
// variable is passed on.
Outcome Run(const std::vector<std::string> &argv, const std::vector<std::string> &environment = {});

// The text's lines, without their newlines.
std::vector<std::string> Lines(const std::string &text);

// Keeps the compiler from knowing what `p` points to, and so from leaving out allocations.
template <typename T>
T *Opaque(T *p) {
  asm volatile("" : "+r"(p) : : "memory");
  return p;
}

}  // namespace hak_test

#endif  // HAKMEM_PRELOAD_TEST_PROCESS_H_

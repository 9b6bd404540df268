// The number of instructions of malloc and free on the hot path, counted in the shipped library (release, x86-64): a
// child process runs on it and is executed one instruction at a time.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "preload/test_process.h"

namespace {

// DESIGN.md, "Budgets, and what guards them".
constexpr size_t kMallocInstructions = 12;
constexpr size_t kMallocBranches = 2;
#if defined(__clang__)
constexpr size_t kFreeInstructions = 20;  // the library that is shipped is gcc's
#else
constexpr size_t kFreeInstructions = 18;
#endif
constexpr size_t kFreeBranches = 4;

constexpr int kPairs = 25;

// What the child tells before it is traced.
struct Addresses {
  uint64_t malloc;
  uint64_t free;
  uint64_t library;  // where it is loaded
};

// The instructions of one call, from the function's first to its ret.
struct Call {
  std::vector<uint64_t> addresses;
  size_t conditional_branches = 0;
  size_t calls = 0;
};

struct Trace {
  Addresses where;
  std::vector<Call> mallocs;
  std::vector<Call> frees;
};

// The traced program: kPairs times malloc and free between two stops.
[[noreturn]] void RunChild(const char *size_text, const char *pipe_text) {
  size_t size = strtoull(size_text, nullptr, 10);
  Addresses where;
  Dl_info info;
  void *malloc_address = dlsym(RTLD_DEFAULT, "malloc");
  if (dladdr(malloc_address, &info) == 0) _exit(2);
  where.malloc = reinterpret_cast<uint64_t>(malloc_address);
  where.free = reinterpret_cast<uint64_t>(dlsym(RTLD_DEFAULT, "free"));
  where.library = reinterpret_cast<uint64_t>(info.dli_fbase);
  if (write(atoi(pipe_text), &where, sizeof where) != sizeof where) _exit(2);

  // The state in which a program spends its time: the class is in use and the thread's list has blocks.
  void *blocks[100];
  for (void *&block : blocks) block = hak_test::Opaque(malloc(size));
  for (int i = 0; i < 50; ++i) free(blocks[i]);

  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(3);
  raise(SIGSTOP);
  for (int i = 0; i < kPairs; ++i) free(hak_test::Opaque(malloc(size)));
  _exit(0);
}

// Jcc rel8 and Jcc rel32, the latter possibly behind a bnd, notrack or hint prefix.
bool IsConditionalBranch(const uint8_t *code) {
  while (*code == 0xf2 || *code == 0x3e || *code == 0x2e) ++code;
  return (*code & 0xf0) == 0x70 || (code[0] == 0x0f && (code[1] & 0xf0) == 0x80);
}

bool IsCall(const uint8_t *code) {
  while (*code == 0xf2 || *code == 0x3e || *code == 0x67) ++code;
  return *code == 0xe8 || (code[0] == 0xff && (code[1] & 0x38) == 0x10);
}

Trace TracePairs(size_t size) {
  Trace trace;
  int report[2];
  if (pipe(report) != 0) {
    ADD_FAILURE() << "pipe: " << strerror(errno);
    return trace;
  }
  std::string size_text = std::to_string(size);
  std::string pipe_text = std::to_string(report[1]);
  std::string library = hak_test::DataFile("preload/libhakmem.so");
  pid_t child = fork();
  if (child == 0) {
    setenv("LD_PRELOAD", library.c_str(), 1);
    execl("/proc/self/exe", "hot_path_test", "--traced", size_text.c_str(), pipe_text.c_str(), nullptr);
    _exit(127);
  }
  close(report[1]);
  bool told = read(report[0], &trace.where, sizeof trace.where) == sizeof trace.where;
  close(report[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!told || !WIFSTOPPED(status)) {
    ADD_FAILURE() << "the child could not be traced (status " << status << "; 768: ptrace is forbidden here)";
    return trace;
  }

  Call *call = nullptr;
  uint64_t return_address = 0;
  for (;;) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, child, nullptr, &registers) != 0) break;
    if (call == nullptr && (registers.rip == trace.where.malloc || registers.rip == trace.where.free)) {
      std::vector<Call> &calls = registers.rip == trace.where.malloc ? trace.mallocs : trace.frees;
      calls.emplace_back();
      call = &calls.back();
      return_address = static_cast<uint64_t>(ptrace(PTRACE_PEEKDATA, child, registers.rsp, nullptr));
    }
    if (call != nullptr) {
      if (registers.rip == return_address) {
        call = nullptr;
      } else {
        long word = ptrace(PTRACE_PEEKTEXT, child, registers.rip, nullptr);
        uint8_t code[sizeof word];
        memcpy(code, &word, sizeof word);
        call->addresses.push_back(registers.rip);
        call->conditional_branches += IsConditionalBranch(code);
        call->calls += IsCall(code);
      }
    }
    if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) break;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) break;
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
  return trace;
}

// The call in the middle when ordered by length: a refill now and then does not count, a longer hot path does.
const Call &Median(std::vector<Call> &calls) {
  std::sort(calls.begin(), calls.end(),
            [](const Call &a, const Call &b) { return a.addresses.size() < b.addresses.size(); });
  return calls[calls.size() / 2];
}

// Where the call went, for `objdump -d libhakmem.so`; the start is enough to see where it left the hot path.
std::string Offsets(const Call &call, uint64_t library) {
  std::string text = "offsets in the library:";
  for (size_t i = 0; i < call.addresses.size() && i < 40; ++i) {
    uint64_t address = call.addresses[i];
    char offset[32];
    std::snprintf(offset, sizeof offset, " %lx", static_cast<unsigned long>(address - library));
    text += offset;
  }
  return text;
}

class HotPath : public testing::TestWithParam<size_t> {};

TEST_P(HotPath, MallocAndFreeStayWithinTheirBudget) {
  Trace trace = TracePairs(GetParam());
  ASSERT_EQ(trace.mallocs.size(), static_cast<size_t>(kPairs));
  ASSERT_EQ(trace.frees.size(), static_cast<size_t>(kPairs));

  const Call &malloc_call = Median(trace.mallocs);
  const Call &free_call = Median(trace.frees);
  std::printf("%zu bytes: malloc %zu instructions, %zu conditional branches; free %zu and %zu\n", GetParam(),
              malloc_call.addresses.size(), malloc_call.conditional_branches, free_call.addresses.size(),
              free_call.conditional_branches);
  EXPECT_LE(malloc_call.addresses.size(), kMallocInstructions) << Offsets(malloc_call, trace.where.library);
  EXPECT_LE(malloc_call.conditional_branches, kMallocBranches);
  EXPECT_EQ(malloc_call.calls, 0u);
  EXPECT_LE(free_call.addresses.size(), kFreeInstructions) << Offsets(free_call, trace.where.library);
  EXPECT_LE(free_call.conditional_branches, kFreeBranches);
  EXPECT_EQ(free_call.calls, 0u);
}

INSTANTIATE_TEST_SUITE_P(TinySizes, HotPath, testing::Values(8, 16, 64, 200, 1024), testing::PrintToStringParamName());

}  // namespace

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "--traced") == 0) RunChild(argv[2], argv[3]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

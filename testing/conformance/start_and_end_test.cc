// "Allocation before constructors, from IFUNC resolvers and from the loader; dlopen/dlclose of libraries with
// constructors, TLS and their own threads; dlmopen; static linking into a static and a static-PIE program; frees in
// atexit handlers, in pthread_key destructors that run after the allocator's own, in signal handlers that interrupt the
// allocator only where POSIX allows it."
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::DataFile;
using hak_test::Opaque;
using hak_test::Outcome;
using hak_test::Owner;

std::string Program(const std::string &name) { return DataFile("testing/conformance/" + name); }

// Bytes of address space that the allocator holds.
size_t HeldBytes() {
  malloc_trim(0);
  struct mallinfo2 info = mallinfo2();
  return info.arena + info.hblkhd;
}

class Lifetime : public testing::TestWithParam<const char *> {};

TEST_P(Lifetime, BlocksOfEveryMomentBeforeMainLiveUntilTheyAreFreedAfterIt) {
  const bool preloaded = GetParam() == std::string("lifetime");
  Outcome outcome = preloaded ? hak_test::Run({Program(GetParam())})
                              : hak_test::Run({"/usr/bin/env", "--unset=LD_PRELOAD", Program(GetParam())});
  EXPECT_EQ(outcome.out, "ok\n");
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.exit_status, 0) << "signal " << outcome.signal;
}

INSTANTIATE_TEST_SUITE_P(Programs, Lifetime,
                         testing::Values("lifetime", "lifetime_linked", "lifetime_static", "lifetime_static_pie"),
                         [](const auto &program) { return std::string(program.param); });

// Its IFUNC resolver calls malloc before libc knows the environment.
TEST(Options, AreReadWhereMallocCameBeforeTheEnvironment) {
  Outcome outcome = hak_test::Run(
      {"/usr/bin/env", "HAKMEM_VERBOSE=x", "HAKMEM_LIMIT=1g", "HAKMEM_TINY_MEM_DIET=1", Program("lifetime")});
  EXPECT_EQ(outcome.out, "ok\n");
  EXPECT_NE(outcome.err.find("HAKMEM_VERBOSE must be a number"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("HAKMEM_TINY_MEM_DIET has no effect"), std::string::npos) << outcome.err;
  EXPECT_EQ(outcome.err.find("HAKMEM_LIMIT"), std::string::npos) << outcome.err;
}

// The library guest.c.
struct Guest {
  explicit Guest(void *handle_of_library) : handle(handle_of_library) {
    if (handle == nullptr) {
      ADD_FAILURE() << dlerror();
      abort();
    }
  }
  ~Guest() { EXPECT_EQ(dlclose(handle), 0); }
  Guest(const Guest &) = delete;
  Guest &operator=(const Guest &) = delete;

  template <typename Function>
  Function *Find(const char *name) {
    return reinterpret_cast<Function *>(dlsym(handle, name));
  }
  bool Start() { return Find<int()>("guest_start")() != 0; }
  bool Stop() { return Find<int()>("guest_stop")() != 0; }
  char *Allocate(size_t size) { return Find<char *(size_t)>("guest_allocate")(size); }
  void Free(char *p) { Find<void(char *)>("guest_free")(p); }

  void *const handle;
};

TEST(Dlopen, LibrariesWithConstructorsTlsAndThreadsComeAndGo) {
  const std::string path = Program("libguest.so");
  char *left = nullptr;
  auto visit = [&] {
    Guest guest(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
    EXPECT_TRUE(guest.Start());
    // The library's TLS of threads that were there before it, allocated by the loader.
    std::thread([&] { guest.Free(guest.Allocate(700)); }).join();
    // A block that outlives the code which allocated it.
    free(left);
    left = guest.Allocate(1000);
    EXPECT_NE(Owner(left), "");
    EXPECT_TRUE(guest.Stop());
  };
  for (int i = 0; i < 20; ++i) visit();
  const size_t before = HeldBytes();
  for (int i = 0; i < 300; ++i) visit();
  EXPECT_LE(HeldBytes(), before + (size_t{4} << 20));
  EXPECT_EQ(left[999], 'g');
  free(left);
}

TEST(Dlmopen, ANamespaceHasItsOwnMallocAndHarmsNobody) {
  const std::string path = Program("libguest.so");
  for (int i = 0; i < 30; ++i) {
    Guest guest(dlmopen(LM_ID_NEWLM, path.c_str(), RTLD_NOW | RTLD_LOCAL));
    char *theirs = guest.Allocate(1000);
    char *ours = Opaque(static_cast<char *>(malloc(1000)));
    EXPECT_EQ(Owner(theirs), "");
    EXPECT_EQ(Owner(ours), "tiny");
    memset(ours, 'o', 1000);
    EXPECT_EQ(theirs[999], 'g');
    guest.Free(theirs);
    EXPECT_EQ(ours[999], 'o');
    free(ours);
  }
}

// Destructors of a thread's keys, in every round that there is.

pthread_key_t late_key;
std::atomic<unsigned> n_late_calls;

void LateDestructor(void *block) {
  ++n_late_calls;
  // Set again, it is called in the next round, long after the allocator's own destructor.
  char *next = static_cast<char *>(malloc(strlen(static_cast<char *>(block)) + 100));
  strcpy(next, static_cast<char *>(block));
  if (std::string(next) != "a block of the thread") abort();
  free(block);
  for (size_t size : {50, 5000, 100000, 3000000}) free(Opaque(malloc(size)));
  pthread_setspecific(late_key, next);
  static thread_local unsigned rounds;
  if (++rounds == PTHREAD_DESTRUCTOR_ITERATIONS) {
    pthread_setspecific(late_key, nullptr);
    free(next);
  }
}

TEST(ThreadEnd, DestructorsThatRunAfterTheAllocatorsOwnAllocateAndFree) {
  // Made after the allocator's: glibc runs destructors in this order.
  ASSERT_EQ(pthread_key_create(&late_key, LateDestructor), 0);
  constexpr unsigned kThreads = 2000;
  auto run = [] {
    for (unsigned i = 0; i < kThreads; ++i)
      std::thread([] { pthread_setspecific(late_key, strdup("a block of the thread")); }).join();
  };
  n_late_calls = 0;
  run();
  EXPECT_EQ(n_late_calls, kThreads * PTHREAD_DESTRUCTOR_ITERATIONS);
  const size_t before = HeldBytes();
  run();
  run();
  EXPECT_LE(HeldBytes(), before + (size_t{4} << 20));
  pthread_key_delete(late_key);
}

// After its destructors libc frees in a detached thread, which may never have allocated, blocks of each stack that it
// gives back: of all that wait for new threads when its own is too large to be kept beside them.
TEST(ThreadEnd, LibcFreesAfterAllDestructorsOfAThreadThatNeverAllocated) {
  constexpr unsigned kThreads = 150;
  for (size_t megabytes : {64, 96, 128}) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, nullptr, kThreads);
    auto wait = [](void *all) -> void * {
      pthread_barrier_wait(static_cast<pthread_barrier_t *>(all));
      return nullptr;
    };
    std::vector<pthread_t> threads(kThreads);
    for (pthread_t &thread : threads) ASSERT_EQ(pthread_create(&thread, &attributes, wait, &barrier), 0);
    for (pthread_t thread : threads) pthread_join(thread, nullptr);
    pthread_barrier_destroy(&barrier);

    static std::atomic<pid_t> detached;
    detached = 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, megabytes << 20);
    auto end = [](void *) -> void * {
      detached = gettid();
      return nullptr;
    };
    pthread_t thread;
    ASSERT_EQ(pthread_create(&thread, &attributes, end, nullptr), 0);
    while (detached == 0 || tgkill(getpid(), detached, 0) == 0) sched_yield();
    malloc_trim(0);  // visits all heaps, also that of a thread that has ended
    pthread_attr_destroy(&attributes);
  }
}

// Threads whose heaps nobody takes away.

void UseAllTiers() {
  for (size_t size : {50, 3000, 100000, 3000000}) free(Opaque(malloc(size)));
}

pthread_key_t last_round_key;

void AllocateInTheLastRound(void *value) {
  static thread_local unsigned rounds;
  if (++rounds == PTHREAD_DESTRUCTOR_ITERATIONS) {
    UseAllTiers();
  } else {
    pthread_setspecific(last_round_key, value);
  }
}

// Each on a stack, with thread-local memory, that is unmapped when it has ended.
void RunThreadsThatAreGone(void *(*work)(void *argument)) {
  constexpr size_t kStackBytes = 1 << 20;
  for (int i = 0; i < 20; ++i) {
    void *stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(stack, MAP_FAILED);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, kStackBytes);
    pthread_t thread;
    ASSERT_EQ(pthread_create(&thread, &attributes, work, nullptr), 0);
    ASSERT_EQ(pthread_join(thread, nullptr), 0);
    pthread_attr_destroy(&attributes);
    munmap(stack, kStackBytes);
  }
}

// Who visits all heaps: a fork, and its child, and a trim.
void ExpectVisitsOfAllHeaps() {
  pid_t child = fork();
  if (child == 0) {
    malloc_trim(0);
    UseAllTiers();
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  malloc_trim(0);
  UseAllTiers();
}

TEST(ThreadEnd, TheFirstAllocationMayBeInTheLastRoundOfDestructors) {
  ASSERT_EQ(pthread_key_create(&last_round_key, AllocateInTheLastRound), 0);
  RunThreadsThatAreGone([](void *) -> void * {
    pthread_setspecific(last_round_key, &last_round_key);
    return nullptr;
  });
  std::thread other([] { ExpectVisitsOfAllHeaps(); });
  other.join();
  pthread_key_delete(last_round_key);
}

TEST(ThreadEnd, AThreadMayEndByTheSystemCallAlone) {
  RunThreadsThatAreGone([](void *) -> void * {
    UseAllTiers();
    syscall(SYS_exit, 0);
    return nullptr;
  });
  std::thread other([] { ExpectVisitsOfAllHeaps(); });
  other.join();
}

// Signal handlers that allocate, where the program is not inside of a function that is unsafe to be interrupted.

std::atomic<unsigned> n_handled;
char *passed_by_handler;
sigjmp_buf back;

void AllocatingHandler(int) {
  free(passed_by_handler);
  passed_by_handler = static_cast<char *>(malloc(100 * (1 + n_handled % 500)));
  for (size_t size : {20, 2000, 70000, 2500000}) free(memset(malloc(size), 'h', size));
  ++n_handled;
}

struct Handler {
  Handler(int signal_number, void (*function)(int)) : number(signal_number) {
    struct sigaction action = {};
    action.sa_handler = function;
    action.sa_flags = SA_ONSTACK;
    sigaction(number, &action, &before);
  }
  ~Handler() { sigaction(number, &before, nullptr); }

  int number;
  struct sigaction before;
};

TEST(Signals, AHandlerMayAllocateAndFreeWhereTheProgramWaits) {
  Handler handler(SIGUSR1, AllocatingHandler);
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const pthread_t self = pthread_self();
  n_handled = 0;
  constexpr unsigned kSignals = 2000;
  // Signals that come at any moment, and are let through only where this thread waits.
  std::thread sender([&] {
    for (unsigned sent = 0; sent < kSignals;) {
      if (n_handled == sent) {
        pthread_kill(self, SIGUSR1);
        ++sent;
      } else {
        sched_yield();
      }
    }
  });
  std::vector<std::string> blocks(100);
  for (unsigned i = 0; n_handled < kSignals; ++i) {
    std::string &block = blocks[i % blocks.size()];
    EXPECT_EQ(block.find_first_not_of('p'), std::string::npos);
    block = std::string(i % 5000, 'p');
    sigsuspend(&before);
  }
  sender.join();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  free(passed_by_handler);
  passed_by_handler = nullptr;
}

TEST(Signals, AHandlerOnAStackOfItsOwnMayLeaveThroughSiglongjmp) {
  std::vector<char> stack(64 << 10);
  stack_t alternate = {};
  alternate.ss_sp = stack.data();
  alternate.ss_size = stack.size();
  stack_t old = {};
  ASSERT_EQ(sigaltstack(&alternate, &old), 0);
  {
    Handler handler(SIGSEGV, [](int number) {
      AllocatingHandler(number);
      siglongjmp(back, 1);
    });
    void *unreadable = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    n_handled = 0;
    for (volatile unsigned i = 0; i < 100; i = i + 1) {
      if (sigsetjmp(back, 1) == 0) *static_cast<volatile char *>(unreadable) = 1;
    }
    EXPECT_EQ(n_handled, 100u);
    munmap(unreadable, 4096);
  }
  sigaltstack(&old, nullptr);
  free(passed_by_handler);
  passed_by_handler = nullptr;
}

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

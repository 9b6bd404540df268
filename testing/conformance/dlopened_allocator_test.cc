// "dlmopen; a variant of the library that can be dlopened itself (no initial-exec TLS surplus needed)":
// libhakmem-dlopen.so. BUILD sets a variable by which glibc leaves no room in the static TLS block for libraries that
// are opened later.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "preload/test_process.h"

namespace {

constexpr size_t kSizes[] = {48, 700, 5000, 30000, 100000, 3000000};
constexpr const char *kTiers[] = {"tiny", "tiny", "mid", "mid", "ace", "huge"};

// The functions of an opened library.
struct Library {
  explicit Library(void *library_handle)
      : handle(library_handle),
        malloc(Find<void *(size_t)>("malloc")),
        free(Find<void(void *)>("free")),
        hak_malloc(Find<void *(size_t)>("hak_malloc")),
        hak_realloc(Find<void *(void *, size_t)>("hak_realloc")),
        hak_free(Find<void(void *)>("hak_free")),
        hak_owner(Find<const char *(const void *)>("hak_owner")) {}

  template <typename Function>
  Function *Find(const char *name) {
    void *function = handle == nullptr ? nullptr : dlsym(handle, name);
    if (function == nullptr) {
      ADD_FAILURE() << name << ": " << dlerror();
      abort();
    }
    return reinterpret_cast<Function *>(function);
  }

  // A block of each tier is allocated, changed and freed.
  void Exercise() const {
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      char *p = static_cast<char *>(i % 2 == 0 ? hak_malloc(kSizes[i]) : malloc(kSizes[i]));
      ASSERT_NE(p, nullptr);
      EXPECT_STREQ(hak_owner(p), kTiers[i]);
      memset(p, 'x', kSizes[i]);
      p = static_cast<char *>(hak_realloc(p, kSizes[i] * 3));
      ASSERT_NE(p, nullptr);
      EXPECT_EQ(p[kSizes[i] - 1], 'x');
      (i % 2 == 0 ? free : hak_free)(p);
    }
  }

  void *const handle;
  void *(*const malloc)(size_t);
  void (*const free)(void *);
  void *(*const hak_malloc)(size_t);
  void *(*const hak_realloc)(void *, size_t);
  void (*const hak_free)(void *);
  const char *(*const hak_owner)(const void *);
};

std::string Path(const char *name) { return hak_test::DataFile(std::string("preload/") + name); }

void *OpenVariant() { return dlopen(Path("libhakmem-dlopen.so").c_str(), RTLD_NOW | RTLD_LOCAL); }

// A thread that was there before the library.
class EarlyThread {
 public:
  EarlyThread() : thread_([this] { Run(); }) {}

  void RunExercise(const Library &library) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      library_ = &library;
    }
    changed_.notify_one();
    thread_.join();
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return library_ != nullptr; });
    library_->Exercise();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const Library *library_ = nullptr;
  std::thread thread_;
};

TEST(DlopenedAllocator, ThePreloadLibraryDoesNotFitWhereTheVariantDoes) {
  void *preload_library = dlopen(Path("libhakmem.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  EXPECT_EQ(preload_library, nullptr);
  EXPECT_NE(std::string(dlerror()).find("static TLS"), std::string::npos);
  EXPECT_NE(OpenVariant(), nullptr) << dlerror();
}

TEST(DlopenedAllocator, ServesThreadsThatWereThereBeforeItAndNewOnes) {
  EarlyThread early;
  Library library(OpenVariant());
  library.Exercise();
  early.RunExercise(library);
  std::vector<void *> blocks(1000);
  for (int round = 0; round < 20; ++round) {
    std::thread([&] {
      library.Exercise();
      for (void *&block : blocks) block = library.hak_malloc(200);
    }).join();
    std::thread([&] {
      for (void *block : blocks) library.hak_free(block);
    }).join();
  }
}

TEST(DlopenedAllocator, ReplacesNobodysMalloc) {
  Library library(OpenVariant());
  void *p = hak_test::Opaque(malloc(100));
  EXPECT_EQ(library.hak_owner(p), nullptr);
  free(p);
  void *q = library.malloc(100);
  EXPECT_STREQ(library.hak_owner(q), "tiny");
  library.free(q);
}

TEST(DlopenedAllocator, DlcloseLeavesItInPlace) {
  Library library(OpenVariant());
  char *p = static_cast<char *>(library.hak_malloc(1000));
  // More often than this process has opened it: it never becomes an error.
  for (int i = 0; i < 100; ++i) EXPECT_EQ(dlclose(library.handle), 0);
  memset(p, 'x', 1000);
  library.hak_free(p);
  library.Exercise();
  std::thread([&] { library.Exercise(); }).join();
  Library again(OpenVariant());
  EXPECT_EQ(again.hak_malloc, library.hak_malloc);
}

// Values of the program's thread-specific keys, one of which has the number that a key of a second libc would have.
class Keys {
 public:
  Keys() {
    for (pthread_key_t &key : keys_) EXPECT_EQ(pthread_key_create(&key, Destroy), 0);
  }
  ~Keys() {
    for (pthread_key_t key : keys_) pthread_key_delete(key);
  }
  void Set() {
    for (pthread_key_t key : keys_) pthread_setspecific(key, &mark);
  }
  void ExpectSet() {
    for (pthread_key_t key : keys_) EXPECT_EQ(pthread_getspecific(key), &mark);
  }

 private:
  static void Destroy(void *value) {
    if (value != &mark) abort();
  }
  static char mark;
  pthread_key_t keys_[40];
};

char Keys::mark;

void *OpenInNamespaceOfItsOwn() {
  return dlmopen(LM_ID_NEWLM, Path("libhakmem-dlopen.so").c_str(), RTLD_NOW | RTLD_LOCAL);
}

TEST(DlopenedAllocator, DlmopenServesThreadsOfTheProgramAndLeavesTheirKeysAlone) {
  Keys keys;
  Library library(OpenInNamespaceOfItsOwn());
  // The same library in the program's own namespace is another allocator.
  Library other(OpenVariant());
  EXPECT_NE(library.hak_malloc, other.hak_malloc);
  keys.Set();
  std::vector<void *> blocks(1000);
  for (int round = 0; round < 50; ++round) {
    std::thread([&] {
      keys.Set();
      library.Exercise();
      other.Exercise();
      for (void *&block : blocks) block = library.hak_malloc(200);
      EXPECT_EQ(other.hak_owner(blocks[0]), nullptr);
      keys.ExpectSet();
    }).join();
    for (void *block : blocks) library.hak_free(block);
  }
  library.Exercise();
  keys.ExpectSet();
}

TEST(DlopenedAllocator, DlmopenKeepsNoMemoryOfThreadsThatEnd) {
  Library library(OpenInNamespaceOfItsOwn());
  auto held_bytes = [&] {
    struct mallinfo2 info = library.Find<struct mallinfo2()>("mallinfo2")();
    return info.arena + info.hblkhd;
  };
  auto run = [&](int n_rounds) {
    for (int round = 0; round < n_rounds; ++round) {
      std::thread([&] {
        library.Exercise();
        for (int i = 0; i < 100; ++i) library.hak_free(library.hak_malloc(1000));
      }).join();
    }
  };
  run(50);
  const size_t before = held_bytes();
  run(500);
  EXPECT_LE(held_bytes(), before + (size_t{4} << 20));
}

TEST(DlopenedAllocator, ServesTheChildOfAFork) {
  Library library(OpenVariant());
  library.Exercise();
  pid_t child = fork();
  if (child == 0) {
    library.Exercise();
    std::thread([&] { library.Exercise(); }).join();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace

#include "bench/allocator.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "bench/measure.h"

namespace hak_bench {

const char kAllocatorHelp[] = "hakmem (default), glibc, jemalloc, mimalloc, tcmalloc, limit, or a library's path";

namespace {

// Set for the second run of the program: its LD_PRELOAD, or the lack of one, is ours.
constexpr char kPreloadedVariable[] = "HAK_BENCH_PRELOADED";

struct Peer {
  const char *name;
  const char *file;
  const char *package;  // of Debian
};

constexpr Peer kPeers[] = {
    {"jemalloc", "libjemalloc.so.2", "libjemalloc2"},
    {"mimalloc", "libmimalloc.so.2.0", "libmimalloc2.0"},
    {"tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"},
};

constexpr const char *kLibraryFolders[] = {
    "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib", "/usr/lib64", "/usr/lib",
};

// A library's own answer to "is this block yours?".
struct OwnerQuery {
  const char *allocator;
  const char *symbol;
  // Returns the answer in words, or "" for no.
  std::string (*ask)(void *function, const void *block);
};

std::string AskHakmem(void *function, const void *block) {
  const char *tier = reinterpret_cast<const char *(*)(const void *)>(function)(block);
  return tier != nullptr ? tier : "";
}

std::string AskBool(void *function, const void *block) {
  return reinterpret_cast<bool (*)(const void *)>(function)(block) ? "yes" : "";
}

std::string AskGperftools(void *function, const void *block) {
  constexpr int kOwned = 1;  // MallocExtension_kOwned
  return reinterpret_cast<int (*)(const void *)>(function)(block) == kOwned ? "yes" : "";
}

std::string AskJemalloc(void *function, const void *block) {
  unsigned arena = 0;
  size_t arena_size = sizeof(arena);
  auto *mallctl = reinterpret_cast<int (*)(const char *, void *, size_t *, void *, size_t)>(function);
  int error = mallctl("arenas.lookup", &arena, &arena_size, &block, sizeof(block));
  return error == 0 ? "arena " + std::to_string(arena) : "";
}

constexpr OwnerQuery kOwnerQueries[] = {
    {"hakmem", "hak_owner", AskHakmem},
    {"mimalloc", "mi_is_in_heap_region", AskBool},
    {"tcmalloc", "MallocExtension_GetOwnership", AskGperftools},
    {"jemalloc", "mallctl", AskJemalloc},
    {"limit", "limit_owns", AskBool},
};

[[noreturn]] __attribute__((format(printf, 2, 3))) void Fail(const std::string &name, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "%s: allocator %s: ", program_invocation_short_name, name.c_str());
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(kExitNotProved);
}

bool IsReadable(const std::string &path) { return access(path.c_str(), R_OK) == 0; }

bool IsSameFile(const std::string &a, const std::string &b) {
  struct stat status_a, status_b;
  return stat(a.c_str(), &status_a) == 0 && stat(b.c_str(), &status_b) == 0 && status_a.st_dev == status_b.st_dev &&
         status_a.st_ino == status_b.st_ino;
}

// The file whose mapping holds `address`, or "".
std::string FileOf(void *address) {
  Dl_info info;
  return address != nullptr && dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}

std::string ExecutablePath() {
  char path[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  return length > 0 ? std::string(path, static_cast<size_t>(length)) : "";
}

// A library of the same build: hakmem's for preloading, or the limit to compare with.
struct OwnLibrary {
  const char *name;
  const char *file;  // from the workspace's root
  const char *target;
};

constexpr OwnLibrary kOwnLibraries[] = {
    {"hakmem", "preload/libhakmem.so", "//preload:libhakmem.so"},
    {"limit", "bench/liblimit.so", "//bench:liblimit.so"},
};

// Bazel's output tree and a runfiles tree both have the library in the folder beside bench/ (or in it); a program that
// was copied together with its runfiles has it in there.
std::string FindOwn(const OwnLibrary &library) {
  const std::string executable = ExecutablePath();
  const std::string folder = executable.substr(0, executable.rfind('/'));
  const std::string candidates[] = {
      folder + "/../" + library.file,
      executable + ".runfiles/hakmem/" + library.file,
  };
  for (const std::string &candidate : candidates) {
    char resolved[PATH_MAX];
    if (realpath(candidate.c_str(), resolved) != nullptr) return resolved;
  }
  Fail(library.name, "%s was not found at %s nor at %s; build %s", library.file, candidates[0].c_str(),
       candidates[1].c_str(), library.target);
}

// The library to preload for `name`; "" for glibc, which needs none.
std::string FindLibrary(const std::string &name) {
  if (name == "glibc") return "";
  for (const OwnLibrary &library : kOwnLibraries) {
    if (name == library.name) return FindOwn(library);
  }
  for (const Peer &peer : kPeers) {
    if (name != peer.name) continue;
    for (const char *folder : kLibraryFolders) {
      std::string path = std::string(folder) + "/" + peer.file;
      if (IsReadable(path)) return path;
    }
    Fail(name, "%s is not installed; Debian's package is %s", peer.file, peer.package);
  }
  bool is_path = name.find('/') != std::string::npos || name.find(".so") != std::string::npos;
  if (!is_path) Fail(name, "unknown; known are %s", kAllocatorHelp);
  // `bazel run` starts programs in a folder of its own and leaves the user's here.
  const char *user_folder = getenv("BUILD_WORKING_DIRECTORY");
  char resolved[PATH_MAX];
  for (const std::string &path : {name, std::string(user_folder != nullptr ? user_folder : ".") + "/" + name}) {
    if (realpath(path.c_str(), resolved) != nullptr && IsReadable(resolved)) return resolved;
  }
  Fail(name, "%s", strerror(errno));
}

// The spelling of `path` for LD_PRELOAD. The loader takes spaces and colons as separators and knows no quoting, so a
// path that has them is given as an open file, which stays open across the exec.
std::string PreloadSpelling(const std::string &name, const std::string &path) {
  if (path.find_first_of(" :") == std::string::npos) return path;
  int file = open(path.c_str(), O_RDONLY);
  if (file < 0) Fail(name, "%s: %s", path.c_str(), strerror(errno));
  return "/proc/self/fd/" + std::to_string(file);
}

// Executes the program anew, unless this is the second run; also where nothing is to be preloaded, so that it costs all
// the same.
void EnsurePreloaded(const std::string &name, const std::string &library, char **argv) {
  const char *marker = getenv(kPreloadedVariable);
  if (marker != nullptr) {
    // What this process starts in turn is not measured.
    unsetenv(kPreloadedVariable);
    unsetenv("LD_PRELOAD");
    return;
  }
  const std::string executable = ExecutablePath();
  setenv(kPreloadedVariable, "1", 1);
  if (library.empty()) {
    unsetenv("LD_PRELOAD");
  } else {
    setenv("LD_PRELOAD", PreloadSpelling(name, library).c_str(), 1);
  }
  execv(executable.c_str(), argv);
  Fail(name, "cannot execute %s again: %s", executable.c_str(), strerror(errno));
}

// Bytes that glibc's own allocator has handed out, whoever's malloc the program calls.
class GlibcHeap {
 public:
  GlibcHeap() {
    // From libc itself: other allocators define mallinfo as well.
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    if (libc == nullptr) return;
    mallinfo2_ = reinterpret_cast<struct mallinfo2 (*)()>(dlsym(libc, "mallinfo2"));
    gnu_get_libc_version_ = dlsym(libc, "gnu_get_libc_version");
  }

  std::string file() const { return FileOf(gnu_get_libc_version_); }
  bool can_count() const { return mallinfo2_ != nullptr; }
  size_t BytesInUse() const {
    struct mallinfo2 info = mallinfo2_();
    return info.uordblks + info.hblkhd;
  }

 private:
  struct mallinfo2 (*mallinfo2_)() = nullptr;
  void *gnu_get_libc_version_ = nullptr;
};

// Several blocks of `size` bytes, of which nothing is written. Those that glibc would map are never freed: that would
// raise the size from which it does (mallopt(3), M_MMAP_THRESHOLD), and others might keep them for what is measured.
class Blocks {
 public:
  explicit Blocks(size_t size) : blocks_(size <= kSmall ? kManySmall : 2, nullptr), size_(size) {}
  ~Blocks() {
    if (size_ > kMappedByGlibc) return;
    for (void *block : blocks_) free(block);
  }
  Blocks(const Blocks &) = delete;
  Blocks &operator=(const Blocks &) = delete;

  bool Allocate() {
    for (void *&block : blocks_) {
      block = malloc(size_);
      if (block == nullptr) return false;
      Escape(block);
    }
    return true;
  }
  const std::vector<void *> &all() const { return blocks_; }

  // What glibc's count of bytes in use grows by at least, if these are its blocks. glibc counts blocks in its thread
  // caches (7 of a size, small sizes only) as in use, so that reusing them is not seen.
  size_t MinGlibcGrowth() const { return size_ <= kSmall ? (kManySmall - 7) * size_ : size_; }

 private:
  static constexpr size_t kSmall = 4096;
  static constexpr size_t kManySmall = 32;
  static constexpr size_t kMappedByGlibc = size_t{128} << 10;
  std::vector<void *> blocks_;
  size_t size_;
};

// The calls a bench may use must all come from `file`.
void CheckSymbols(const std::string &name, const std::string &file) {
  for (const char *symbol : {"malloc", "free", "calloc", "realloc"}) {
    const std::string found = FileOf(dlsym(RTLD_DEFAULT, symbol));
    if (!IsSameFile(found, file)) {
      Fail(name, "%s comes from %s, not from %s; nothing was measured", symbol, found.c_str(), file.c_str());
    }
  }
}

// The query that `file` answers, or NULL. A query that another library answers shows a mixed process.
const OwnerQuery *FindOwnerQuery(const std::string &name, const std::string &file) {
  const OwnerQuery *usable = nullptr;
  for (const OwnerQuery &query : kOwnerQueries) {
    const std::string found = FileOf(dlsym(RTLD_DEFAULT, query.symbol));
    if (found.empty()) continue;
    if (!IsSameFile(found, file)) Fail(name, "%s of another allocator is present, in %s", query.symbol, found.c_str());
    usable = &query;
  }
  for (const OwnerQuery &query : kOwnerQueries) {
    if (name == query.allocator && (usable == nullptr || usable->symbol != query.symbol)) {
      Fail(name, "%s has no %s to prove it by", file.c_str(), query.symbol);
    }
  }
  return usable;
}

// A block of 1 GiB, though untouched, would change what is measured: realloc of jemalloc and tcmalloc makes use of the
// addresses for a vector that grows. And mimalloc 2 does not know such a block for its own.
constexpr size_t kLargestProved = size_t{32} << 20;

// Says a run of sizes with the same answer once: " tiny for 8, 128; mid for 2048".
void AppendAnswer(std::string *proof, std::string *previous, size_t size, const std::string &answer) {
  if (answer == *previous) {
    *proof += ", " + std::to_string(size);
  } else {
    *proof += (previous->empty() ? " " : "; ") + answer + " for " + std::to_string(size);
  }
  *previous = answer;
}

// Figures of the library and the benches as they are built for tests say nothing.
#ifdef __OPTIMIZE__
constexpr const char *kBuild = "";
#else
constexpr const char *kBuild = ", of a build without optimisation";
#endif

}  // namespace

std::string UseAllocator(const std::string &name, char **argv, const std::vector<size_t> &sizes) {
  const std::string library = FindLibrary(name);
  EnsurePreloaded(name, library, argv);

  const GlibcHeap glibc;
  const bool is_glibc = library.empty();
  const std::string file = is_glibc ? glibc.file() : library;
  CheckSymbols(name, file);
  const OwnerQuery *query = FindOwnerQuery(name, file);

  std::string proof = "malloc lies there";
  if (query != nullptr) proof += std::string(", ") + query->symbol + " says";
  std::string previous;
  for (size_t wanted_size : sizes) {
    const size_t size = std::min(wanted_size, kLargestProved);
    Blocks blocks(size);
    size_t before = glibc.can_count() ? glibc.BytesInUse() : 0;
    if (!blocks.Allocate()) Fail(name, "malloc(%zu) failed", size);
    size_t growth = glibc.can_count() ? glibc.BytesInUse() - before : 0;
    if (is_glibc && growth < blocks.MinGlibcGrowth()) {
      Fail(name, "blocks of %zu B are not glibc's: its bytes in use grew by %zu", size, growth);
    }
    if (!is_glibc && growth != 0) {
      Fail(name, "blocks of %zu B come from glibc: its bytes in use grew by %zu", size, growth);
    }
    std::string answer;
    for (void *block : blocks.all()) {
      if (query == nullptr) break;
      answer = query->ask(dlsym(RTLD_DEFAULT, query->symbol), block);
      if (answer.empty()) Fail(name, "%s does not own the block of %zu B at %p", file.c_str(), size, block);
    }
    if (query != nullptr) AppendAnswer(&proof, &previous, size, answer);
  }
  if (query != nullptr) proof += " B";
  if (glibc.can_count()) proof += is_glibc ? ", its bytes in use grow" : ", glibc's bytes in use do not grow";
  return name + " = " + file + " (proved: " + proof + ")" + kBuild;
}

}  // namespace hak_bench

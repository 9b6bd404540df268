#define _GNU_SOURCE  // mremap, syscall

#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "base/poison.h"
#include "platform/os.h"
#include "platform/small_file.h"

// A range that one thread gives back may be mapped by another at once, which then writes the descriptors of the same
// addresses. The kernel orders the two; this tells the memory model (and tsan) so: the release before a range is given
// back pairs with the acquire after one is mapped.
// Not 0 at first, so that it lies beside other data and not alone on a page behind the registry.
static size_t n_given_back = 1;  // atomic

static void before_giving_back(void) { (void)hak_add_release(&n_given_back, 1); }
static void after_mapping(void) { (void)hak_load_acquire(&n_given_back); }

static void *linux_map(void *hint, size_t bytes) {
  int saved_errno = errno;
  void *p = mmap(hint, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  errno = saved_errno;
  after_mapping();
  return p == MAP_FAILED ? NULL : p;
}

static size_t linux_resident_bytes(const void *start, size_t bytes) {
  int saved_errno = errno;
  unsigned char resident[512];
  size_t page_bytes = hak_os_linux()->page_bytes;
  size_t n_resident = 0;
  const char *page = start;
  for (size_t n_pages = bytes / page_bytes; n_pages != 0;) {
    size_t n = hak_min(n_pages, sizeof resident);
    if (mincore((void *)(uintptr_t)page, n * page_bytes, resident) != 0) memset(resident, 1, n);
    for (size_t i = 0; i < n; ++i) n_resident += resident[i] & 1;
    page += n * page_bytes;
    n_pages -= n;
  }
  errno = saved_errno;
  return n_resident * page_bytes;
}

// What the calling thread gives back, see hak_os_count_begin.
static __thread bool counting HAK_TLS_MODEL;
static __thread size_t counted_bytes HAK_TLS_MODEL;

static size_t resident_bytes_if_counting(const void *start, size_t bytes) {
  return counting ? linux_resident_bytes(start, bytes) : 0;
}

static bool linux_unmap(void *start, size_t bytes) {
  int saved_errno = errno;
  size_t resident = resident_bytes_if_counting(start, bytes);
  before_giving_back();
  // memcheck sees the call itself.
  if (HAK_CONFIG_ASAN) hak_unpoison(start, bytes);
  bool done = munmap(start, bytes) == 0;
  if (done) counted_bytes += resident;
  errno = saved_errno;
  return done;
}

static bool linux_purge(void *start, size_t bytes) {
  int saved_errno = errno;
  size_t resident = resident_bytes_if_counting(start, bytes);
  bool done = madvise(start, bytes, MADV_DONTNEED) == 0;
  if (done) counted_bytes += resident;
  errno = saved_errno;
  return done;
}

// Older kernels unmap the target before they look whether they can move the source. What is_refused has not foreseen, a
// lack of the kernel's own memory, say, ends here. This takes the range again; a range that is still mapped stays as it
// is.
static void restore_target(void *target, size_t bytes) {
  void *p = mmap(target, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  // Kernels before 4.17 take the address for a hint.
  if (p != MAP_FAILED && p != target) (void)munmap(p, bytes);
}

// Whether the kernel might refuse to move the range because it is not one mapping any more (the program has given a
// part of it other properties), or because it is locked in memory and too large for that. It looks for both first also
// when it is asked to grow the range in place, to half of the address space.
static bool is_refused(void *start, size_t bytes) {
  size_t half = (size_t)1 << 46;
  if (mremap(start, bytes, half, 0) == MAP_FAILED) return errno != ENOMEM;
  (void)mremap(start, half, bytes, 0);
  return false;
}

static void *linux_remap(void *start, size_t old_bytes, size_t new_bytes, void *target) {
  int saved_errno = errno;
  void *p = MAP_FAILED;
  before_giving_back();
  if (target == NULL) {
    p = mremap(start, old_bytes, new_bytes, 0);
  } else if (!is_refused(start, old_bytes)) {
    p = mremap(start, old_bytes, new_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    if (p == MAP_FAILED) restore_target(target, new_bytes);
  }
  errno = saved_errno;
  after_mapping();
  return p == MAP_FAILED ? NULL : p;
}

static void linux_huge_pages(void *start, size_t bytes, bool wanted) {
  int saved_errno = errno;
  (void)madvise(start, bytes, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  errno = saved_errno;
}

// What headers older than the kernel may lack.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

// Whether the administrator forbids transparent huge pages, which MADV_COLLAPSE does not ask. Read when the process
// begins, since later it may have given up the right to open files, or see others. Where the file cannot be read,
// nobody has forbidden them.
static bool huge_pages_forbidden;  // atomic

static void read_huge_pages_setting(void) {
  int saved_errno = errno;
  char modes[64];
  (void)hak_small_file_read("/sys/kernel/mm/transparent_hugepage/enabled", modes, sizeof modes);
  hak_store_relaxed(&huge_pages_forbidden, strstr(modes, "[never]") != NULL);
  errno = saved_errno;
}

// Huge pages by MADV_COLLAPSE (Linux 6.1) and not by MADV_HUGEPAGE: it leaves no mark on the mapping, which would keep
// it apart from its neighbours, and let the kernel make huge pages again of what was purged in part.
static bool collapse(char *start, size_t bytes) {
  // The kernel looks at page tables only where there are some.
  (void)madvise(start, hak_os_linux()->page_bytes, MADV_POPULATE_WRITE);
  return madvise(start, bytes, MADV_COLLAPSE) == 0;
}

static bool linux_populate(void *start, size_t bytes, bool huge) {
  int saved_errno = errno;
  bool done = huge && !hak_load_relaxed(&huge_pages_forbidden) && collapse(start, bytes);
  if (!done) done = madvise(start, bytes, MADV_POPULATE_WRITE) == 0;
  errno = saved_errno;
  return done;
}

// A process has to register once, which a child inherits; that costs some milliseconds where there are threads already,
// so it waits for the first barrier that somebody needs.
static bool linux_barrier(void) {
  int saved_errno = errno;
  hak_sync_point();
  bool done = syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) == 0;
  if (!done && errno == EPERM) {
    done = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) == 0 &&
           syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) == 0;
  }
  hak_sync_point();
  errno = saved_errno;
  return done;
}

static bool linux_guard(void *start, size_t bytes) {
  int saved_errno = errno;
  bool done = mprotect(start, bytes, PROT_NONE) == 0;
  if (done) (void)madvise(start, bytes, MADV_DONTNEED);
  errno = saved_errno;
  return done;
}

static uint64_t linux_now_ms(void) {
  struct timespec now;
  // The coarse clock is read without a system call; it cannot fail where the kernel is younger than 2.6.32.
  (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t linux_thread_ns(void) {
  int saved_errno = errno;
  struct timespec used = {0};
  // Refused by a filter, perhaps.
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  errno = saved_errno;
  return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

const struct hak_os *hak_os_linux(void) {
  static struct hak_os os = {
      .map = linux_map,
      .unmap = linux_unmap,
      .purge = linux_purge,
      .resident_bytes = linux_resident_bytes,
      .remap = linux_remap,
      .huge_pages = linux_huge_pages,
      .populate = linux_populate,
      .barrier = linux_barrier,
      .guard = linux_guard,
      .now_ms = linux_now_ms,
      .thread_ns = linux_thread_ns,
  };
  // Every thread that gets here stores the same values. getauxval, because sysconf may open files.
  if (__atomic_load_n(&os.page_bytes, __ATOMIC_RELAXED) == 0) {
    read_huge_pages_setting();
    __atomic_store_n(&os.page_bytes, getauxval(AT_PAGESZ), __ATOMIC_RELAXED);
  }
  return &os;
}

void hak_os_count_begin(void) {
  counting = true;
  counted_bytes = 0;
}

size_t hak_os_count_end(void) {
  counting = false;
  return counted_bytes;
}

uint64_t hak_os_random(void) {
  int saved_errno = errno;
  uint64_t bits;
  // By system call, since libc's function is a cancellation point.
  if (syscall(SYS_getrandom, &bits, sizeof bits, GRND_NONBLOCK) != sizeof bits) {
    // Refused, or too early after the machine's start: the kernel has given every process 16 random bytes. Not as they
    // are, because libc's stack guard is made of them; the stack lies at a random address as well.
    uint64_t given[2];
    memcpy(given, (const void *)getauxval(AT_RANDOM), sizeof given);  // at any address
    static uint64_t n_calls;                                          // atomic
    uint64_t odd = given[0] | 1;
    bits = (given[1] ^ (uintptr_t)&bits ^ hak_add_relaxed(&n_calls, 1) << 32) * odd;
    bits ^= bits >> 31;
  }
  errno = saved_errno;
  return bits;
}

void *hak_os_map_aligned(const struct hak_os *os, void *hint, size_t bytes, size_t alignment) {
  char *p = os->map(hint, bytes);
  if (p == NULL || ((uintptr_t)p & (alignment - 1)) == 0) return p;

  // The kernel packs mappings without regard to our alignment: map more, and give both ends back.
  os->unmap(p, bytes);
  size_t slack = alignment - os->page_bytes;
  if (bytes + slack < bytes) return NULL;
  p = os->map(NULL, bytes + slack);
  if (p == NULL) return NULL;
  char *start = (char *)hak_round_up((uintptr_t)p, alignment);
  char *end = start + bytes;
  size_t head = (size_t)(start - p);
  size_t tail = slack - head;
  if (head != 0) os->unmap(p, head);
  if (tail != 0) os->unmap(end, tail);
  return start;
}

static size_t metadata_guard_bytes(const struct hak_os *os) { return HAK_CONFIG_HARDENED ? os->page_bytes : 0; }

void *hak_os_map_metadata(const struct hak_os *os, size_t bytes) {
  size_t guard_bytes = metadata_guard_bytes(os);
  char *p = os->map(NULL, guard_bytes + bytes + guard_bytes);
  if (p == NULL || guard_bytes == 0) return p;
  // A page that cannot be guarded is one that nobody uses.
  (void)os->guard(p, guard_bytes);
  (void)os->guard(p + guard_bytes + bytes, guard_bytes);
  return p + guard_bytes;
}

void hak_os_unmap_metadata(const struct hak_os *os, void *start, size_t bytes) {
  size_t guard_bytes = metadata_guard_bytes(os);
  (void)os->unmap((char *)start - guard_bytes, guard_bytes + bytes + guard_bytes);
}

// glibc's windows on the allocator, on top of hak_stats_read: mallinfo, mallinfo2, malloc_stats, malloc_info.
//
// preload/README.md has the meaning of every field. Nothing is counted for them when a program allocates.
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stddef.h>
#include <stdio.h>

#include "base/bits.h"
#include "base/compiler.h"
#include "platform/report.h"
#include "router/hakmem.h"

// The pages of SuperSlabs that a tier or a thread holds.
static size_t used_bytes(const struct hak_stats *stats) { return stats->slab_bytes - stats->ace_free_bytes; }

HAK_EXPORT struct mallinfo2 mallinfo2(void) {
  struct hak_stats stats;
  hak_stats_read(&stats);
  size_t arena_bytes = stats.superslab_bytes + stats.huge_cached_bytes;
  size_t free_bytes = arena_bytes - used_bytes(&stats);
  return (struct mallinfo2){
      .arena = arena_bytes,
      .hblks = stats.n_huge,
      .hblkhd = stats.huge_bytes,
      .uordblks = used_bytes(&stats),
      .fordblks = free_bytes,
      .keepcost = free_bytes,
  };
}

// glibc lets a number that does not fit wrap; the largest is the lesser lie.
static int to_int(size_t n) { return (int)hak_min(n, INT_MAX); }

HAK_EXPORT struct mallinfo mallinfo(void) {
  struct mallinfo2 info = mallinfo2();
  return (struct mallinfo){
      .arena = to_int(info.arena),
      .hblks = to_int(info.hblks),
      .hblkhd = to_int(info.hblkhd),
      .uordblks = to_int(info.uordblks),
      .fordblks = to_int(info.fordblks),
      .keepcost = to_int(info.keepcost),
  };
}

// On stderr as in glibc, but past stdio, so that it also works where memory has run out.
HAK_EXPORT void malloc_stats(void) {
  struct hak_stats stats;
  hak_stats_read(&stats);
  hak_report("SuperSlabs: %zu bytes mapped, %zu bytes in use", stats.superslab_bytes, used_bytes(&stats));
  hak_report("ACE: %zu bytes of SuperSlabs, %zu bytes of them free", stats.ace_bytes, stats.ace_free_bytes);
  hak_report("Huge: %zu blocks of %zu bytes, %zu bytes cached", stats.n_huge, stats.huge_bytes,
             stats.huge_cached_bytes);
}

// The stream may allocate its buffer here, from this library: no lock is held.
HAK_EXPORT int malloc_info(int options, FILE *stream) {
  int saved_errno = errno;
  if (options != 0) {
    errno = EINVAL;
    return -1;
  }
  struct hak_stats stats;
  hak_stats_read(&stats);
  int written = fprintf(stream,
                        "<malloc version=\"hakmem-1\">\n"
                        "<superslabs mapped=\"%zu\" used=\"%zu\"/>\n"
                        "<ace mapped=\"%zu\" free=\"%zu\"/>\n"
                        "<huge count=\"%zu\" size=\"%zu\" cached=\"%zu\"/>\n"
                        "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n"
                        "<system type=\"current\" size=\"%zu\"/>\n"
                        "</malloc>\n",
                        stats.superslab_bytes, used_bytes(&stats), stats.ace_bytes, stats.ace_free_bytes, stats.n_huge,
                        stats.huge_bytes, stats.huge_cached_bytes, stats.n_huge, stats.huge_bytes,
                        stats.superslab_bytes + stats.huge_bytes + stats.huge_cached_bytes);
  if (written < 0) return -1;
  errno = saved_errno;
  return 0;
}

// The operating system as the allocator sees it: address space, pages, a clock. Everything above this layer reaches
// the kernel only through a `struct hak_os`, so that a test can pass one that fails at the N-th call.
#ifndef HAKMEM_PLATFORM_OS_H_
#define HAKMEM_PLATFORM_OS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// All addresses and sizes are multiples of page_bytes. No function allocates or changes errno, any thread may call.
struct hak_os {
  // The size of a page in bytes, a power of two: 4 KiB, 16 KiB or 64 KiB.
  size_t page_bytes;

  // Maps `bytes` of zeroed, lazily backed, private memory, at `hint` if that range is free (NULL: anywhere).
  // NULL when the kernel refuses.
  void *(*map)(void *hint, size_t bytes);

  // Gives the range back; its addresses may be reused by anyone. False if the kernel refuses (a range in the middle
  // of a mapping needs a new one): the range then stays mapped and the caller keeps it.
  bool (*unmap)(void *start, size_t bytes);

  // Drops the pages of the range; the next touch finds zeroes. False if they are kept (mlock): content then stays.
  bool (*purge)(void *start, size_t bytes);

  // The bytes of the range whose pages are in memory; all where the kernel does not say. A hint: pages that were
  // swapped out are not counted, but have content. Cost: a system call for each 512 pages.
  size_t (*resident_bytes)(const void *start, size_t bytes);

  // Moves or resizes the mapping [start, old_bytes) to new_bytes without copying, in place if `target` is NULL, else
  // onto `target`, whose range must belong to the caller and is replaced. NULL when the kernel refuses; nothing has
  // changed then.
  void *(*remap)(void *start, size_t old_bytes, size_t new_bytes, void *target);

  // Asks for (true) or against (false) huge pages in the range. A wish: it may be ignored.
  void (*huge_pages)(void *start, size_t bytes, bool wanted);

  // Gives every page of the range memory now, which costs less than a fault for each, and least with `huge`: in huge
  // pages, as far as the kernel has any and its administrator allows them. Content stays. False if the kernel refuses
  // or knows no such call (before Linux 5.14); some pages may have got memory then.
  bool (*populate)(void *start, size_t bytes, bool huge);

  // Makes every other running thread of the process pass a full memory barrier, and is one itself. False if the kernel
  // cannot (before Linux 4.14, or refused by a filter); then nothing has happened.
  bool (*barrier)(void);

  // Takes access to the range away, for good: a touch ends the program. Its pages go (unless they
  // are locked); it is unmapped as any other.
  // False if the kernel refuses; then nothing has happened.
  bool (*guard)(void *start, size_t bytes);

  // Milliseconds of a clock that never goes back, to a few milliseconds.
  uint64_t (*now_ms)(void);

  // Nanoseconds of processor time that the calling thread has used, in the kernel too; 0, always, where the kernel does
  // not say. Cost: a system call.
  uint64_t (*thread_ns)(void);
};

// The kernel this process runs on. Never fails, never allocates; the page size is read at run time.
const struct hak_os *hak_os_linux(void);

// Between the two, what the calling thread unmaps and purges is counted, as far as it was resident (resident_bytes);
// the second returns the bytes. They do not nest. Cost: a system call more for each range, in proportion to its length.
void hak_os_count_begin(void);
size_t hak_os_count_end(void);

// 64 random bits that no other process can know. Never fails, never allocates, keeps errno. Cost: a system call.
uint64_t hak_os_random(void);

// Maps `bytes` at a multiple of `alignment`, a power of two of at least a page. NULL when the kernel refuses.
// Cost: one system call when the kernel's first choice is aligned, three otherwise.
void *hak_os_map_aligned(const struct hak_os *os, void *hint, size_t bytes, size_t alignment);

// Maps `bytes` that the program has no business with: in the hardened library between two guard pages. NULL when the
// kernel refuses.
void *hak_os_map_metadata(const struct hak_os *os, size_t bytes);

// Gives back what hak_os_map_metadata has mapped.
void hak_os_unmap_metadata(const struct hak_os *os, void *start, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_OS_H_

// hakmem: a general-purpose memory allocator for 64-bit Linux.
//
// This is the API for programs that link //router:hakmem and call the allocator by name. The library that replaces a
// program's own malloc is //preload:libhakmem.so (or //preload:malloc for static linking); it exports these as well.
//
// Any thread may call any function here at any time. A block may be freed by any thread. Every block is aligned to 16
// bytes at least, and belongs to exactly one tier: Tiny (to 1 KiB), Mid (to 32 KiB), ACE (below 2 MiB) or Huge.
#ifndef HAKMEM_ROUTER_HAKMEM_H_
#define HAKMEM_ROUTER_HAKMEM_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Returns a block of at least `size` bytes with undefined content. Size 0 gives a block of its own that can be freed.
// When no memory is left, or `size` exceeds PTRDIFF_MAX: NULL and errno = ENOMEM. errno is kept on success. Cost: with
// a block at hand about 12 instructions (Tiny), 20 (Mid) or 30 (ACE); of Huge a lock, or a few system calls. Growth
// takes a few system calls per SuperSlab (2 MiB).
void *hak_malloc(size_t size);

// Gives a block back. NULL is ignored, errno is kept. A pointer that is not a live block of hakmem stops the program
// with one line on stderr that names it (see docs/misuse.md for what is recognised).
void hak_free(void *p);

// Returns a block of n * size bytes, all zero; NULL and ENOMEM as above and when the product overflows. Cost: as
// malloc, and the clearing, which memory that is fresh goes without, and a block of 256 KiB or more if few of its pages
// were written to.
void *hak_calloc(size_t n, size_t size);

// Changes the size of block `p` to `size` bytes, keeping the content up to the smaller of both sizes; the block may
// move. NULL as `p` means malloc. Size 0 frees `p` and returns NULL, as glibc does. On failure NULL and ENOMEM, and `p`
// stays as it was. A pointer that is not a live block stops the program, as with hak_free. A block of at most 32 KiB
// that has to move to grow by less than a quarter of it becomes longer by that quarter, for programs that append piece
// by piece; not so in the hardened library, with HAKMEM_TINY_MEM_DIET, and where memory is short.
void *hak_realloc(void *p, size_t size);

// hak_realloc(p, n * size), failing with ENOMEM where the product overflows.
void *hak_reallocarray(void *p, size_t n, size_t size);

// Returns a block aligned to `alignment`, a power of two; errno = EINVAL otherwise, ENOMEM when memory has run out.
void *hak_aligned_alloc(size_t alignment, size_t size);

// Stores such a block in *out and returns 0; returns EINVAL (alignment not a power of two multiple of sizeof(void *))
// or ENOMEM otherwise and leaves *out alone. errno is kept.
int hak_posix_memalign(void **out, size_t alignment, size_t size);

// The bytes of block `p` that may be used, at least what was asked for; 0 for NULL. A pointer that is not a live block
// stops the program, as with hak_free.
size_t hak_usable_size(const void *p);

// Gives unused memory back to the operating system, of all threads. Of free pages ACE, Huge and the pool keep at most
// `pad` bytes each, of a SuperSlab or mapping all or none; those between blocks of Tiny and Mid go in any case. Returns
// how many bytes have left the process: pages that were resident, which a page is too that was read and never written.
// 0 if there was nothing to give. A thread that is inside of the allocator just then, or works without pause, keeps
// what its own caches hold; other threads keep the free blocks of the slabs they allocate from, and their caches of
// ACE. Cost: system calls in proportion to what is returned.
size_t hak_trim(size_t pad);

// Sets the option `name`, which is the environment variable of the same name, to `value`, which is what the variable
// accepts (README.md has the table): hak_set("HAKMEM_LIMIT", "80%"). Neither may be NULL. Returns 0, or, with nothing
// changed and nothing printed, EINVAL (no such option, or a value that it does not accept) or EPERM (it can be chosen
// at the start of the process only). Takes effect at once, for all threads; memory that is held already beyond a lower
// HAKMEM_LIMIT stays, but for what is unused (call hak_trim). errno is kept.
//
// At run time: HAKMEM_PURGE_DELAY_MS, HAKMEM_BACKGROUND_PURGE, HAKMEM_THP (for memory that is mapped from then on),
// HAKMEM_LIMIT, HAKMEM_FOREIGN_FREE, HAKMEM_VERBOSE.
int hak_set(const char *name, const char *value);

// What the option `name`, not NULL, is: a number, for a word its place among those accepted (from 0), for HAKMEM_LIMIT
// bytes (0: no limit), be it hard or soft. -1 if there is no such option; HAKMEM_WIPE is one in the hardened library
// only.
long long hak_get(const char *name);

// What the allocator holds of the process's address space. Each number but the last counts what is mapped, whether or
// not pages were touched, and none what the registry and descriptors take. Always ace_free_bytes <= ace_bytes <=
// slab_bytes <= superslab_bytes.
struct hak_stats {
  size_t superslab_bytes;    // SuperSlabs of Tiny, Mid and ACE: 2 MiB for each that is mapped
  size_t slab_bytes;         // of these, in slabs that a tier or a thread holds: its blocks, in use or free
  size_t ace_bytes;          // of these, in ACE's SuperSlabs
  size_t ace_free_bytes;     // of these, in pages that neither a block nor a thread's cache takes
  size_t n_huge;             // Huge's blocks in use
  size_t huge_bytes;         // mapped for them
  size_t huge_cached_bytes;  // mappings of freed Huge blocks that are kept for the next request
  size_t held_bytes;         // what HAKMEM_LIMIT counts: memory that may hold pages, and all of the Huge mappings
};

// Fills in *stats. Blocks are not counted one by one, since malloc and free would pay for it: what slab_bytes and
// ace_bytes say of live blocks is an upper bound. Does not allocate. Cost: the locks of ACE, Huge and the pool, and a
// walk over the SuperSlabs of ACE that have room.
void hak_stats_read(struct hak_stats *stats);

// The name of the tier that owns the memory at `p` ("tiny", "mid", "ace", "huge"), or NULL if hakmem does not own it.
// Never touches the memory at `p`, so any address may be asked for. Benchmarks use it to prove what they measure. Cost:
// a few loads; for what the registry does not know (of a Huge block all but the first 64 KiB), Huge's lock and a walk
// over its blocks.
const char *hak_owner(const void *p);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_HAKMEM_H_

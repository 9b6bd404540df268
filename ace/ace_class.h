// ACE's pages and size classes. Internal to ace/.
//
// ACE counts in pages of 4 KiB, whatever the operating system's page is. From 8 pages on there are 8 classes to each
// doubling:
//
//   class   0   1   2  ..   7 |  8   9  ..  15 | 16  ..  23 | ..  | 40  ..  47
//   pages   9  10  11  ..  16 | 18  20  ..  32 | 36  ..  64 | ..  | 288 .. 512
//   KiB    36  40  44  ..  64 | 72  80  .. 128 | 144 .. 256 | ..  | 1152 .. 2048
//
// so that at most a ninth of an extent is beyond what was asked for; it costs no memory before it is touched.
#ifndef HAKMEM_ACE_ACE_CLASS_H_
#define HAKMEM_ACE_ACE_CLASS_H_

#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_ACE_CLASSES 48
#define HAK_ACE_PAGE_SHIFT 12
#define HAK_ACE_PAGE_BYTES ((size_t)1 << HAK_ACE_PAGE_SHIFT)
#define HAK_ACE_MIN_PAGES ((size_t)9)
#define HAK_ACE_SUPERSLAB_PAGES ((size_t)512)

// A request may get a cached extent that is so many classes larger than its own.
#define HAK_ACE_MAX_CLASSES_ABOVE 8

// What the hot path looks up instead of computing it.
struct hak_ace_class_tables {
  uint64_t window[HAK_ACE_CLASSES];  // by class: the bits of the classes whose extents may serve it
  uint8_t of_pages[HAK_ACE_SUPERSLAB_PAGES - (HAK_ACE_MIN_PAGES - 1)];  // by n - 8: hak_ace_class_of_pages(n)
};

extern const struct hak_ace_class_tables hak_ace_class_tables HAK_HIDDEN;

// The smallest class whose extents have more than `n` pages; n is from 8 to 511.
static inline size_t hak_ace_class_of_pages(size_t n) {
  // The three bits below the highest one of n count the steps within the doubling.
  size_t shift = hak_log2_floor(n) - 3;
  return 8 * shift + (n >> shift) - 8;
}

// The smallest class whose extents have `size` bytes; size is from 1 to 2 MiB.
static inline size_t hak_ace_class_of_size(size_t size) {
  return hak_ace_class_of_pages(hak_max((size - 1) >> HAK_ACE_PAGE_SHIFT, HAK_ACE_MIN_PAGES - 1));
}

// The largest class whose requests an extent of `n_pages` pages, from HAK_ACE_MIN_PAGES to 512, can meet.
static inline size_t hak_ace_class_of_extent(size_t n_pages) {
  size_t shift = hak_log2_floor(n_pages) - 3;
  return 8 * shift + (n_pages >> shift) - 9;
}

static inline size_t hak_ace_class_pages(size_t size_class) { return (9 + (size_class & 7)) << (size_class >> 3); }

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ACE_ACE_CLASS_H_

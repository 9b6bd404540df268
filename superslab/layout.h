// The geometry of address space, shared by all tiers.
//
//   region   4 GiB   what one lazily backed table of descriptors covers      address bits 47..32
//   SuperSlab 2 MiB  the unit that is mapped, one transparent huge page      address bits 31..21
//   slab     64 KiB  the unit of ownership, 32 to a SuperSlab                address bits 20..16
#ifndef HAKMEM_SUPERSLAB_LAYOUT_H_
#define HAKMEM_SUPERSLAB_LAYOUT_H_

#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/compiler.h"

#define HAK_SLAB_SHIFT 16
#define HAK_SLAB_BYTES ((size_t)1 << HAK_SLAB_SHIFT)

#define HAK_SUPERSLAB_SHIFT 21
#define HAK_SUPERSLAB_BYTES ((size_t)1 << HAK_SUPERSLAB_SHIFT)
#define HAK_SUPERSLAB_SLABS ((size_t)32)

#define HAK_REGION_SHIFT 32
#define HAK_REGION_SLABS ((size_t)1 << (HAK_REGION_SHIFT - HAK_SLAB_SHIFT))
#define HAK_REGION_SUPERSLABS ((size_t)1 << (HAK_REGION_SHIFT - HAK_SUPERSLAB_SHIFT))

// User space addresses have 47 bits on x86-64 and 48 on most other machines; the kernel hands out more only to who asks
// for them by a hint, which nobody here does. Pointers above are foreign.
#define HAK_ADDRESS_BITS 48
#define HAK_ADDRESS_MASK (((uintptr_t)1 << HAK_ADDRESS_BITS) - 1)
#define HAK_REGIONS ((size_t)1 << (HAK_ADDRESS_BITS - HAK_REGION_SHIFT))

// A slab's kind says who owns its blocks, and, for blocks of equal size, which size class they have.
//   0          not ours
//   1..64      Tiny: blocks of 16 * kind bytes
//   65..104    Mid: class kind - 65 of mid/mid.h
//   105..125   Mid: the same without colour, for alignments
//   126        ACE
//   127        Huge (the first slab of a mapping only)
#define HAK_KIND_NONE 0
#define HAK_KIND_TINY_FIRST 1
#define HAK_KIND_TINY_LAST 64
#define HAK_KIND_MID_FIRST 65
#define HAK_KIND_MID_LAST_CLASS 104
#define HAK_KIND_MID_LAST 125
#define HAK_MID_KINDS (HAK_KIND_MID_LAST - HAK_KIND_MID_FIRST + 1)
#define HAK_KIND_ACE 126
#define HAK_KIND_HUGE 127
#define HAK_KINDS 128

// By kind of Mid: the length of 32 blocks for the largest size in its doubling, as a logarithm: from 16 for sizes to 2
// KiB to 20 for those to 32 KiB. Of all others 0.
extern const uint8_t hak_kind_32_blocks_shifts[HAK_KINDS] HAK_HIDDEN;

// The runs of slabs that blocks of one kind of Tiny or Mid are cut from: 256 KiB for sizes to 8 KiB, 512 KiB to 16
// KiB, 1 MiB to 32 KiB, so that a run has 31 blocks or more. A run is aligned to its own length, of which this is the
// logarithm.
#define HAK_RUN_SHIFT_MIN 18
static inline unsigned hak_kind_run_shift(size_t kind) {
  return (unsigned)hak_max(hak_kind_32_blocks_shifts[kind], HAK_RUN_SHIFT_MIN);
}

static inline size_t hak_kind_run_slabs(size_t kind) {
  return (size_t)1 << (hak_kind_run_shift(kind) - HAK_SLAB_SHIFT);
}

// The first address of the run that holds the block of `kind` at `address`.
static inline uintptr_t hak_kind_run_base(size_t kind, uintptr_t address) {
  unsigned shift = hak_kind_run_shift(kind);
  return address >> shift << shift;
}

#endif  // HAKMEM_SUPERSLAB_LAYOUT_H_

// The registry: from any address to its owner, without touching memory that may be unmapped.
//
// A 4-byte entry for every 64 KiB of address space says what lies there:
//
//    31                                8 7              0
//   +-----------------------------------+----------------+
//   |   id of the owning heap, or 0     |      kind      |      0 = not ours
//   +-----------------------------------+----------------+
//
// The entries lie in regions, one per 4 GiB of address space in use, beside the out-of-line descriptors of the same
// addresses, so that an address leads to its descriptors by arithmetic alone:
//
//   struct hak_registry (static, lazily backed)          struct hak_region (mapped when first needed, lazily backed)
//   +------------------------+                           +--------------------------------+
//   | nothing[65536]  zero   |<--- offset 0: no region   | entry[65536]          256 KiB  |  read by every free
//   +------------------------+                           | superslab[2048]       128 KiB  |  pool's lock (covers: own)
//   | region_offset[65536]   |----------------------->   | slab_private[65536]     4 MiB  |  written by the owner
//   +------------------------+                           | slab_shared[65536]      4 MiB  |  written by other threads
//                                                        | in_use                 32 MiB  |  hardened library only
//                                                        +--------------------------------+
//
// An address without a region has offset 0 and so reads an entry of `nothing`: the look-up needs no branch.
// What a region really costs is 4 KiB of entries per 32 SuperSlabs and 4.1 KiB of descriptors per SuperSlab, and that
// only while something lies in the same section of 64 MiB.
#ifndef HAKMEM_SUPERSLAB_REGISTRY_H_
#define HAKMEM_SUPERSLAB_REGISTRY_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "platform/lock.h"
#include "platform/os.h"
#include "superslab/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_DESCRIPTOR_BYTES 64

// What a bit, and a word, of `in_use` stands for.
#define HAK_IN_USE_GRANULE 16
#define HAK_IN_USE_WORD_SHIFT 10

struct hak_superslab;

struct hak_descriptor {
  unsigned char bytes[HAK_DESCRIPTOR_BYTES];
};

// A section has 4 KiB of entries, and 64 KiB of descriptors of either kind: whole pages, as a rule.
#define HAK_SECTION_SHIFT 26
#define HAK_SECTION_SLABS ((size_t)1 << (HAK_SECTION_SHIFT - HAK_SLAB_SHIFT))

struct hak_superslab_slot {
  unsigned char bytes[HAK_DESCRIPTOR_BYTES - sizeof(uint64_t)];
  uint64_t n_covers;  // of the first SuperSlab in a section: how many mappings begin in it; the registry's lock
};

struct hak_region {
  uint32_t entry[HAK_REGION_SLABS];  // atomic
  struct hak_superslab_slot superslab[HAK_REGION_SUPERSLABS];
  struct hak_descriptor slab_private[HAK_REGION_SLABS];
  struct hak_descriptor slab_shared[HAK_REGION_SLABS];
  // Hardened: bit per HAK_IN_USE_GRANULE bytes; whether a block of Tiny or Mid that is in use starts there. Atomic.
  uint64_t in_use[HAK_CONFIG_HARDENED << (HAK_REGION_SHIFT - HAK_IN_USE_WORD_SHIFT)];
};

struct hak_registry {
  uint32_t nothing[HAK_REGION_SLABS];   // stays zero
  uint64_t region_offset[HAK_REGIONS];  // atomic; from this struct to the region, in units of 4 bytes; 0: none
};

extern struct hak_registry hak_registry HAK_HIDDEN;

// Lock rank: innermost.
extern struct hak_mutex hak_registry_lock HAK_HIDDEN;

// The region that holds `address`, below 1 << HAK_ADDRESS_BITS. Where there is none, the registry itself, which is as
// good for reading an entry, and for nothing else.
static inline struct hak_region *hak_region_of(uintptr_t address) {
  uint64_t offset = hak_load_relaxed(&hak_registry.region_offset[address >> HAK_REGION_SHIFT]);
  return (struct hak_region *)((uintptr_t)&hak_registry + offset * sizeof(uint32_t));
}

// The address of the entry for `p`, which has no bits above HAK_ADDRESS_BITS.
static inline uint32_t *hak_registry_entry(const void *p) {
  uintptr_t address = (uintptr_t)p;
  return &hak_region_of(address)->entry[(uint32_t)address >> HAK_SLAB_SHIFT];
}

// Where an entry lies.
struct hak_registry_place {
  const struct hak_registry *registry;  // the only one
  uint64_t index;                       // from there, in units of 4 bytes
};

static HAK_ALWAYS_INLINE const uint32_t *hak_registry_entry_at(struct hak_registry_place place) {
  return (const uint32_t *)((uintptr_t)place.registry + place.index * sizeof(uint32_t));
}

// The kind byte of the entry alone, for the hot path of free, and where the entry lies. Bits of `p` above
// HAK_ADDRESS_BITS are ignored, so that the look-up needs no branch; the caller excludes such pointers by other means.
// The offset is read without an atomic operation, which lets it be an operand of the addition: whoever holds a block of
// ours got it, by way of the program's own synchronisation, after the region was made.
static HAK_ALWAYS_INLINE size_t hak_registry_look_up(const void *p, struct hak_registry_place *place) {
  uintptr_t region = ((uintptr_t)p >> HAK_REGION_SHIFT) & (HAK_REGIONS - 1);
  uint64_t slab = (uint32_t)(uintptr_t)p >> HAK_SLAB_SHIFT;
  const struct hak_registry *registry = &hak_registry;
  HAK_HIDE(registry);
  *place = (struct hak_registry_place){registry, registry->region_offset[region] + slab};
  return hak_load_relaxed((const uint8_t *)hak_registry_entry_at(*place));
}

static HAK_ALWAYS_INLINE size_t hak_registry_kind(const void *p) {
  struct hak_registry_place place;
  return hak_registry_look_up(p, &place);
}

// The entry for any bit pattern `p`; 0 for what is not ours.
static inline uint32_t hak_registry_find(const void *p) {
  if (HAK_UNLIKELY((uintptr_t)p >> HAK_ADDRESS_BITS != 0)) return 0;
  return hak_load_relaxed(hak_registry_entry(p));
}

// An owner's id is a multiple of HAK_OWNER_STEP.
#define HAK_OWNER_STEP 0x100

static inline uint32_t hak_entry_make(uint32_t owner_id, uint32_t kind) { return owner_id | kind; }
static inline uint32_t hak_entry_kind(uint32_t entry) { return entry % HAK_OWNER_STEP; }
static inline uint32_t hak_entry_owner(uint32_t entry) { return entry - entry % HAK_OWNER_STEP; }

// Makes sure that there are entries and descriptors for the SuperSlab at `address`, which the caller has mapped, until
// hak_registry_uncover. False when memory for them has run out, or above HAK_ADDRESS_BITS. Any thread: two may race for
// the same region, and the loser's is unmapped. Cost: the registry's lock; two system calls per 4 GiB of address space
// in use.
bool hak_registry_cover(const struct hak_os *os, uintptr_t address);

// Ends that: the caller has unmapped the SuperSlab, or needs its entries and descriptors no more. Where nothing else is
// covered in its section, the registry's memory for it goes back to the operating system, and reads as zero. Any
// thread. Cost: the registry's lock, held for three system calls where a section has become empty.
void hak_registry_uncover(const struct hak_os *os, uintptr_t address);

// Sets the entries of the `n_slabs` slabs from `base` on. The region exists.
void hak_registry_set(uintptr_t base, size_t n_slabs, uint32_t entry);

// The 64-byte descriptors of the slab that holds `address`; its region exists. What they hold is the tier's business.
// All 32 private descriptors of a SuperSlab are contiguous. They are zero when the region is new, and keep what was
// last written, or become zero again, when nothing is covered there.
static inline void *hak_slab_private_descriptor(uintptr_t address) {
  return &hak_region_of(address)->slab_private[(uint32_t)address >> HAK_SLAB_SHIFT];
}

static inline void *hak_slab_shared_descriptor(uintptr_t address) {
  return &hak_region_of(address)->slab_shared[(uint32_t)address >> HAK_SLAB_SHIFT];
}

// The private descriptor of the slab that is `offset` bytes before `address`, from `address`'s own entry. Shorter than
// by the region: the distance between entry and descriptor is a product of 32 bits.
static HAK_ALWAYS_INLINE void *hak_slab_private_descriptor_beside(const uint32_t *entry, uintptr_t address,
                                                                  uint32_t offset) {
  uint32_t slab = (uint32_t)address >> HAK_SLAB_SHIFT;
  uint32_t beyond_entry = slab * (uint32_t)(HAK_DESCRIPTOR_BYTES - sizeof(uint32_t));
  uint32_t back = (offset >> HAK_SLAB_SHIFT) * HAK_DESCRIPTOR_BYTES;
  return (void *)((uintptr_t)entry + beyond_entry + offsetof(struct hak_region, slab_private) - back);
}

// The descriptor of the SuperSlab that holds `address`; its region exists.
static inline struct hak_superslab *hak_superslab_descriptor(uintptr_t address) {
  return (struct hak_superslab *)&hak_region_of(address)->superslab[(uint32_t)address >> HAK_SUPERSLAB_SHIFT];
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_SUPERSLAB_REGISTRY_H_

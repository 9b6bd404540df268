// The links between free blocks: the first 8 bytes of each hold the address of the next. In the hardened library they
// are encoded, so that a program that writes to a block after it was freed is stopped before malloc believes it.
#ifndef HAKMEM_HEAP_LINK_H_
#define HAKMEM_HEAP_LINK_H_

#include <stdint.h>

#include "base/compiler.h"
#include "base/poison.h"
#include "platform/report.h"
#include "platform/secret.h"
#include "superslab/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

static HAK_ALWAYS_INLINE void hak_link_set(uintptr_t block, uintptr_t next) {
  hak_poisoned_store(block, HAK_CONFIG_HARDENED ? hak_secret_encode(block, next) : next);
}

// The next block of the list that free block `block` is in, or what ends the list: the base of a slab.
static HAK_ALWAYS_INLINE uintptr_t hak_link_get(uintptr_t block) {
  uintptr_t word = hak_poisoned_load(block);
  if (!HAK_CONFIG_HARDENED) return word;
  uintptr_t next = hak_secret_decode(block, word);
  // Both lie in the same run, which lies in one SuperSlab.
  if (HAK_UNLIKELY((next ^ block) >> HAK_SUPERSLAB_SHIFT != 0 || next % 16 != 0)) {
    hak_fatal_misuse("malloc", (void *)block, HAK_MISUSE_CORRUPTED);
  }
  return next;
}

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_HEAP_LINK_H_

// What the hardened library does with a block between its tier and the program. Internal to router/.
//
// Each block of Tiny, Mid and ACE is sealed behind the bytes that were asked for, of which the program may use no more:
//
//   0                      size                block_bytes - 8      block_bytes
//   +----------------------+-------------------+--------------------+
//   | the program's        | canary, to 16 B   |  seal: size, encoded
//   +----------------------+-------------------+--------------------+
//
// A bit per 16 bytes of address space, out of line (superslab/registry.h), says where such blocks start that are in
// use. Huge needs neither: there are guard pages behind its blocks, and only their first address is registered.
#ifndef HAKMEM_ROUTER_HARDENED_H_
#define HAKMEM_ROUTER_HARDENED_H_

#include <stddef.h>
#include <stdint.h>

#include "heap/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

// The bytes to ask a tier for; sizes from `unsealed_min` on stay as they are.
static inline size_t hak_hardened_bytes(size_t size, size_t unsealed_min) {
  return size < unsealed_min ? size + sizeof(uint64_t) : size;
}

// Seals the block of `kind` at `p`, fresh from its tier or resized, for `size` bytes.
void hak_hardened_seal(void *p, size_t kind, size_t block_bytes, size_t size);

// What the block at `p` was sealed for. Stops the program, on behalf of `function`, if it is not in use or overflowed.
size_t hak_hardened_size(const void *p, size_t kind, size_t block_bytes, const char *function);

// Checks the block at `p` the same way, and declares it free: of all that try, one gets through. The size.
size_t hak_hardened_unseal(void *p, size_t kind, size_t block_bytes, const char *function);

// Keeps free block `p`, of Tiny or Mid, from being used again soon: the block to give back instead, or NULL. The
// calling thread has a heap.
void *hak_hardened_delay(void *p, size_t block_bytes);

// Gives back all blocks that the calling thread keeps. `cache` is its own, and has a heap.
void hak_hardened_flush(struct hak_cache *cache);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_HARDENED_H_

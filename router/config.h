// The environment variables that steer the allocator (README.md has the table).
#ifndef HAKMEM_ROUTER_CONFIG_H_
#define HAKMEM_ROUTER_CONFIG_H_

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_CONFIG_PURGE_DELAY_MAX_MS 3600000  // an hour

struct hak_config {
  unsigned tiny_use_superslab;     // 0: Mid serves Tiny's sizes
  unsigned ace_enabled;            // 0: Huge serves ACE's sizes
  unsigned tiny_mem_diet;          // 1: small caches, memory returned at once
  unsigned tiny_refill_count_hot;  // blocks per refill of a hot class
  unsigned purge_delay_ms;         // the decay time
  unsigned background_purge;       // 1: a thread gives back what stays unused while the program idles
  unsigned allow_malloc_fallback;  // 1: libc serves what every tier has refused
  bool foreign_free_libc;          // blocks that are not hakmem's are libc's; else they are misuse
  unsigned wipe;                   // 1: freed memory is cleared; hardened library only
  unsigned verbose;                // 1: warnings are printed
};

// Reads the variables through `get`, which is getenv or a test's stand-in. A value that is not a decimal number in the
// accepted range, or not one of the accepted words, is reported in one line on stderr, and the default is used. Does
// not allocate.
struct hak_config hak_config_read(const char *(*get)(const char *name));

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_CONFIG_H_

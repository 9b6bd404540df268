// The options that steer the allocator (README.md has the table). Each is an environment variable that is read when the
// process starts; some can be changed later by hak_set (hakmem.h).
#ifndef HAKMEM_ROUTER_CONFIG_H_
#define HAKMEM_ROUTER_CONFIG_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HAK_CONFIG_PURGE_DELAY_MAX_MS 3600000  // an hour
#define HAK_CONFIG_LIMIT_MIN_BYTES ((size_t)1024 * 1024)

// What can be changed at run time is atomic, relaxed.
struct hak_config {
  unsigned tiny_use_superslab;     // 0: Mid serves Tiny's sizes
  unsigned ace_enabled;            // 0: Huge serves ACE's sizes
  unsigned tiny_mem_diet;          // 1: small caches, memory returned at once
  unsigned tiny_refill_count_hot;  // blocks per refill of a hot class
  unsigned purge_delay_ms;         // run time; the decay time
  unsigned background_purge;       // run time; 1: a thread gives back what stays unused while the program idles
  unsigned thp;                    // run time; enum hak_thp
  struct {
    size_t bytes;                  // 0: none
    unsigned soft;                 // 1: beyond it memory is given nevertheless, and what is unused goes back
  } limit;                         // run time; what the process may hold (superslab/limit.h)
  unsigned allow_malloc_fallback;  // 1: libc serves what every tier has refused
  unsigned foreign_free_libc;      // run time; 1: blocks that are not hakmem's are libc's; 0: they are misuse
  unsigned wipe;                   // 1: freed memory is cleared; hardened library only
  unsigned verbose;                // run time; 1: warnings are printed
};

// Reads the variables through `get`, which is getenv or a test's stand-in. A value that is not accepted is reported in
// one line on stderr, and the default is used. Does not allocate.
struct hak_config hak_config_read(const char *(*get)(const char *name));

// Sets the one option `name` of *config to `value`, if it can be changed at run time. 0; or, with nothing changed,
// EINVAL or EPERM as hak_set has them.
int hak_config_parse(struct hak_config *config, const char *name, const char *value);

// Takes the option `name`, if there is one, over from another config.
void hak_config_copy(struct hak_config *config, const struct hak_config *from, const char *name);

// Takes those over that can be changed at run time, and reports each other one that differs: that *config had to be
// read before there was an environment.
void hak_config_take_late(struct hak_config *config, const struct hak_config *late);

// The option's value as hak_get has it; -1 if there is none.
long long hak_config_get(const struct hak_config *config, const char *name);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_CONFIG_H_

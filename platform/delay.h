// Random delays at the synchronisation points (base/atomic.h) of checked builds: a race whose window is a few
// instructions wide, and hardly ever met, becomes a likely one. In all other builds there is nothing of it.
//
// Each thread draws from a generator of its own, seeded from the process's seed and the order in which the threads came
// to their first synchronisation point. So a seed repeats each thread's decisions; what the scheduler makes of them may
// differ.
#ifndef HAKMEM_PLATFORM_DELAY_H_
#define HAKMEM_PLATFORM_DELAY_H_

#include <stdint.h>

#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

#if HAK_CONFIG_CHECKED

// Sets the process's seed, from which all threads' generators start anew. 0: no delays. Until it is called, the seed is
// the number in the environment's HAKMEM_DELAY_SEED, read once; 0 if there is none. Any thread.
void hak_delay_set_seed(uint64_t seed);

// The process's seed. Any thread.
uint64_t hak_delay_seed(void);

// The number of delays so far, of all threads. Any thread.
uint64_t hak_delay_count(void);

#else

static inline void hak_delay_set_seed(uint64_t seed) { (void)seed; }
static inline uint64_t hak_delay_seed(void) { return 0; }
static inline uint64_t hak_delay_count(void) { return 0; }

#endif

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_DELAY_H_

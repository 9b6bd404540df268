// The background thread of HAKMEM_BACKGROUND_PURGE=1: it gives back what stays unused in a program that idles, which
// otherwise happens only while the program allocates and frees. Internal to router/.
#ifndef HAKMEM_ROUTER_BACKGROUND_H_
#define HAKMEM_ROUTER_BACKGROUND_H_

#include <stdbool.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "router/process.h"

#ifdef __cplusplus
extern "C" {
#endif

// Starts the thread if the variable asks for it, the process holds 16 MiB of SuperSlabs and Huge mappings, and none
// runs. It ends when the process holds less. Called with no lock held, of libc's either; may allocate. Where no thread
// can be had, the next call tries again.
void hak_background_start(struct hak_process *process);

// Not from free, which libc calls with locks held that it takes to start a thread: free asks.
void hak_background_ask(void);

// Starts it as above if somebody has asked since the last call, or the process uses 8 MiB of slabs more or less: a
// program may have its peak between two ticks, and idle from then on.
void hak_background_look(struct hak_process *process);

// The look of malloc, when it has what it was called for.
static inline void hak_background_look_if_wanted(struct hak_process *process) {
  if (HAK_UNLIKELY(hak_load_relaxed(&process->config.background_purge) != 0)) hak_background_look(process);
}

// When the process begins, and in the child of a fork, where the thread does not exist.
void hak_background_begin(const struct hak_process *process);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_BACKGROUND_H_

// The background thread of HAKMEM_BACKGROUND_PURGE=1: it gives back what stays unused in a program that idles, which
// otherwise happens only while the program allocates and frees. Internal to router/.
#ifndef HAKMEM_ROUTER_BACKGROUND_H_
#define HAKMEM_ROUTER_BACKGROUND_H_

#include "router/process.h"

#ifdef __cplusplus
extern "C" {
#endif

// Starts the thread if the variable asks for it, the process holds 16 MiB of SuperSlabs or cached Huge mappings, and
// none runs. It ends when the process holds less. Called with no lock held; may allocate. Where no thread can be had,
// the next call tries again.
void hak_background_start(struct hak_process *process);

// In the child of a fork, where the thread does not exist.
void hak_background_forget(void);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_BACKGROUND_H_

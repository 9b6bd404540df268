// The state of the process and of each thread that the router composes the tiers over. Internal to router/.
#ifndef HAKMEM_ROUTER_PROCESS_H_
#define HAKMEM_ROUTER_PROCESS_H_

#include <stdbool.h>
#include <stddef.h>

#include "ace/ace.h"
#include "base/compiler.h"
#include "heap/cache.h"
#include "heap/heap.h"
#include "huge/huge.h"
#include "router/config.h"
#include "superslab/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hak_process {
  struct hak_config config;
  struct hak_pool pool;
  struct hak_heap_set heaps;
  struct hak_ace ace;
  struct hak_huge_heap huge;
};

// A thread's caches. Apart from each other, because the first has an initial value that is copied when a thread starts,
// and the second, larger one is zero and is backed only in threads that use it.
extern __thread struct hak_cache hak_thread_cache HAK_TLS_MODEL HAK_HIDDEN;
extern __thread struct hak_ace_cache hak_thread_ace_cache HAK_TLS_MODEL HAK_HIDDEN;

// The process's state, made by whoever comes first. Never NULL. Any thread. Cost once made: two instructions.
struct hak_process *hak_process_get(void);

// Called by every slow path: now and then returns what has stayed unused for the decay time, of all tiers. The
// process's state exists.
void hak_process_tick(void);

// Returns what has stayed unused for the decay time, of all tiers and threads. True if that was too much for one call,
// so that the next should come soon. The process's state exists. Any thread.
bool hak_process_decay(void);

// Returns what is unused to the operating system, of all tiers and threads, but for what hak_trim keeps with `pad`. The
// process's state exists. Any thread.
void hak_process_trim(size_t pad);

// hak_set of hakmem.h. The process's state exists.
int hak_process_set(const char *name, const char *value);

// Gives the calling thread a heap, and has it taken away again when the thread ends. True if it has one then; false
// when memory has run out, or when the thread has ended already, so that nobody would take the heap away.
bool hak_thread_attach(void);

// Called by each free of a thread without a heap: from the 64th on it gives the thread one, as above.
void hak_thread_frees_without_heap(void);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_ROUTER_PROCESS_H_

// Atomic access whose name carries the memory order. These are the compiler's builtins on plain fields rather than
// C11's _Atomic, so that C++ tests can include the structs; every field that is accessed through them is marked
// "atomic" where it is declared, and docs/concurrency.md lists which release pairs with which acquire.
#ifndef HAKMEM_BASE_ATOMIC_H_
#define HAKMEM_BASE_ATOMIC_H_

#include "base/compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

// Checked builds: now and then delays the calling thread. See platform/delay.h, which also links it.
void hak_delay(void);

// A synchronisation point: where what other threads do meanwhile matters. Before and after each operation below but the
// relaxed ones, before a lock is taken and after it is given back, before and after the barrier of visits.
static HAK_ALWAYS_INLINE void hak_sync_point(void) {
  if (HAK_CONFIG_CHECKED) hak_delay();
}

#ifdef __cplusplus
}
#endif

// An operation between two synchronisation points.
#define HAK_SYNC(operation)                      \
  __extension__({                                \
    hak_sync_point();                            \
    __typeof__(operation) result_ = (operation); \
    hak_sync_point();                            \
    result_;                                     \
  })

#define hak_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define hak_load_acquire(p) HAK_SYNC(__atomic_load_n((p), __ATOMIC_ACQUIRE))

#define hak_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define hak_store_release(p, v) (hak_sync_point(), __atomic_store_n((p), (v), __ATOMIC_RELEASE), hak_sync_point())

#define hak_exchange_acquire(p, v) HAK_SYNC(__atomic_exchange_n((p), (v), __ATOMIC_ACQUIRE))
#define hak_exchange_acq_rel(p, v) HAK_SYNC(__atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL))

#define hak_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define hak_sub_relaxed(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELAXED)
#define hak_add_release(p, v) HAK_SYNC(__atomic_fetch_add((p), (v), __ATOMIC_RELEASE))

// Weak compare-and-swap for use in a loop: on failure *expected holds the value that was found.
#define hak_cas_release(p, expected, desired) HAK_CAS_(p, expected, desired, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED)
#define hak_cas_acquire(p, expected, desired) HAK_CAS_(p, expected, desired, 1, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)
#define hak_cas_acq_rel(p, expected, desired) HAK_CAS_(p, expected, desired, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)
#define hak_cas_relaxed(p, expected, desired) HAK_CAS_(p, expected, desired, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)

// The same for use once: fails only where another value was found, with acquire.
#define hak_cas_once_acq_rel(p, expected, desired) HAK_CAS_(p, expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)

#define HAK_CAS_(p, expected, desired, weak, success, failure) \
  HAK_SYNC(__atomic_compare_exchange_n((p), (expected), (desired), (weak), (success), (failure)))

#endif  // HAKMEM_BASE_ATOMIC_H_

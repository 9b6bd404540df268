// An operating system for tests: the real kernel behind counters, failures on request, a clock that the test sets and
// a page size of choice. There is one per process, since struct hak_os has no room for a context.
#ifndef HAKMEM_PLATFORM_OS_FAKE_H_
#define HAKMEM_PLATFORM_OS_FAKE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "platform/os.h"

#ifdef __cplusplus
extern "C" {
#endif

enum hak_os_fake_call {
  HAK_OS_FAKE_MAP,
  HAK_OS_FAKE_UNMAP,
  HAK_OS_FAKE_PURGE,
  HAK_OS_FAKE_REMAP,
  HAK_OS_FAKE_HUGE_PAGES,
  HAK_OS_FAKE_POPULATE,
  HAK_OS_FAKE_BARRIER,
  HAK_OS_FAKE_GUARD,
  HAK_OS_FAKE_NOW,
  HAK_OS_FAKE_ANY,  // each map, unmap, purge, remap, populate and guard counts here as well
  HAK_OS_FAKE_CALLS
};

// The fake. An address or size that is not a multiple of its page size stops the test.
const struct hak_os *hak_os_fake(void);

// Sets all counters and the clock to 0, forgets all failures, and makes pages of `page_bytes` bytes: a power of two, at
// least the kernel's. What is mapped stays mapped. No other thread uses the fake meanwhile.
void hak_os_fake_reset(size_t page_bytes);

// Lets `count` calls fail, the `nth` from now on (1: the next) being the first. SIZE_MAX: all from there on. A count of
// 0 ends the failures. A failing call does nothing. Calls of the kinds HUGE_PAGES and NOW cannot fail.
void hak_os_fake_fail(enum hak_os_fake_call call, size_t nth, size_t count);

// Lets map and remap fail where more than `bytes` would be mapped since the reset. SIZE_MAX: no limit, as after a
// reset.
void hak_os_fake_limit(size_t bytes);

// Ends all failures and the limit.
void hak_os_fake_succeed(void);

// The number of calls since the reset, failed ones included.
size_t hak_os_fake_count(enum hak_os_fake_call call);

// The number of these that failed on request.
size_t hak_os_fake_failed_count(enum hak_os_fake_call call);

// The bytes mapped less those unmapped since the reset.
size_t hak_os_fake_mapped_bytes(void);

// The bytes in ranges that were purged since the reset.
size_t hak_os_fake_purged_bytes(void);

// The bytes in ranges that were populated since the reset; `huge`: of those for which huge pages were asked.
size_t hak_os_fake_populated_bytes(bool huge);

void hak_os_fake_advance_ms(uint64_t ms);

// Lets each populate from now on take so much of the thread's time, as thread_ns tells it; after a reset it takes none.
void hak_os_fake_populate_takes(bool huge, uint64_t ns);

#ifdef __cplusplus
}
#endif

#endif  // HAKMEM_PLATFORM_OS_FAKE_H_

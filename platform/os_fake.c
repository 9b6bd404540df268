#include "platform/os_fake.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "base/bits.h"

struct call {
  size_t count;       // atomic
  size_t fail_first;  // atomic; fails from this count on
  size_t fail_count;  // atomic; 0: does not fail
  size_t n_failed;    // atomic
};

static struct call calls[HAK_OS_FAKE_CALLS];
static size_t mapped_bytes;            // atomic
static size_t limit_bytes = SIZE_MAX;  // atomic
static size_t purged_bytes;            // atomic
static size_t populated_bytes[2];      // atomic; [1]: in huge pages
static uint64_t clock_ms;              // atomic
static uint64_t thread_clock_ns;       // atomic
static uint64_t populate_ns[2];        // atomic; [1]: in huge pages
static struct hak_os fake;

static bool fails(enum hak_os_fake_call kind) {
  struct call *call = &calls[kind];
  size_t n = hak_add_relaxed(&call->count, 1) + 1;
  size_t first = hak_load_relaxed(&call->fail_first);
  return n >= first && n - first < hak_load_relaxed(&call->fail_count);
}

static bool call_fails(enum hak_os_fake_call kind) {
  bool any_fails = fails(HAK_OS_FAKE_ANY);
  if (!fails(kind) && !any_fails) return false;
  hak_add_relaxed(&calls[HAK_OS_FAKE_ANY].n_failed, 1);
  hak_add_relaxed(&calls[kind].n_failed, 1);
  return true;
}

static void check_whole_pages(const void *start, size_t bytes) {
  if (bytes != 0 && (((uintptr_t)start | bytes) & (fake.page_bytes - 1)) == 0) return;
  fprintf(stderr, "os_fake: range %p + %zu is not whole pages of %zu bytes\n", start, bytes, fake.page_bytes);
  abort();
}

// Counts `bytes` as mapped; false, and they are not, where that exceeds the limit.
static bool charge(size_t bytes) {
  size_t before = hak_add_relaxed(&mapped_bytes, bytes);
  size_t limit = hak_load_relaxed(&limit_bytes);
  if (before <= limit && bytes <= limit - before) return true;
  hak_sub_relaxed(&mapped_bytes, bytes);
  return false;
}

static void *fake_map(void *hint, size_t bytes) {
  check_whole_pages(NULL, bytes);
  if (call_fails(HAK_OS_FAKE_MAP) || !charge(bytes)) return NULL;
  // The kernel's own pages may be smaller, and its mappings less aligned.
  void *p = hak_os_map_aligned(hak_os_linux(), hint, bytes, fake.page_bytes);
  if (p == NULL) hak_sub_relaxed(&mapped_bytes, bytes);
  return p;
}

static bool fake_unmap(void *start, size_t bytes) {
  check_whole_pages(start, bytes);
  if (call_fails(HAK_OS_FAKE_UNMAP) || !hak_os_linux()->unmap(start, bytes)) return false;
  hak_sub_relaxed(&mapped_bytes, bytes);
  return true;
}

static bool fake_purge(void *start, size_t bytes) {
  check_whole_pages(start, bytes);
  if (call_fails(HAK_OS_FAKE_PURGE) || !hak_os_linux()->purge(start, bytes)) return false;
  hak_add_relaxed(&purged_bytes, bytes);
  return true;
}

static size_t fake_resident_bytes(const void *start, size_t bytes) {
  check_whole_pages(start, bytes);
  return hak_os_linux()->resident_bytes(start, bytes);
}

static void *fake_remap(void *start, size_t old_bytes, size_t new_bytes, void *target) {
  check_whole_pages(start, old_bytes);
  check_whole_pages(target, new_bytes);
  // What is moved onto a target leaves its old range, and the target was counted before.
  size_t kept_bytes = target == NULL ? hak_min(old_bytes, new_bytes) : 0;
  size_t added_bytes = target == NULL ? new_bytes - kept_bytes : 0;
  if (call_fails(HAK_OS_FAKE_REMAP) || !charge(added_bytes)) return NULL;
  void *p = hak_os_linux()->remap(start, old_bytes, new_bytes, target);
  hak_sub_relaxed(&mapped_bytes, p == NULL ? added_bytes : old_bytes - kept_bytes);
  return p;
}

static void fake_huge_pages(void *start, size_t bytes, bool wanted) {
  check_whole_pages(start, bytes);
  (void)fails(HAK_OS_FAKE_HUGE_PAGES);
  hak_os_linux()->huge_pages(start, bytes, wanted);
}

static bool fake_populate(void *start, size_t bytes, bool huge) {
  check_whole_pages(start, bytes);
  if (call_fails(HAK_OS_FAKE_POPULATE) || !hak_os_linux()->populate(start, bytes, huge)) return false;
  hak_add_relaxed(&populated_bytes[huge], bytes);
  hak_add_relaxed(&thread_clock_ns, hak_load_relaxed(&populate_ns[huge]));
  return true;
}

static bool fake_barrier(void) {
  if (!fails(HAK_OS_FAKE_BARRIER)) return hak_os_linux()->barrier();
  hak_add_relaxed(&calls[HAK_OS_FAKE_BARRIER].n_failed, 1);
  return false;
}

static bool fake_guard(void *start, size_t bytes) {
  check_whole_pages(start, bytes);
  return !call_fails(HAK_OS_FAKE_GUARD) && hak_os_linux()->guard(start, bytes);
}

static uint64_t fake_now_ms(void) {
  (void)fails(HAK_OS_FAKE_NOW);
  return hak_load_relaxed(&clock_ms);
}

static uint64_t fake_thread_ns(void) { return hak_load_relaxed(&thread_clock_ns); }

static struct hak_os fake = {
    .page_bytes = 4096,
    .map = fake_map,
    .unmap = fake_unmap,
    .purge = fake_purge,
    .resident_bytes = fake_resident_bytes,
    .remap = fake_remap,
    .huge_pages = fake_huge_pages,
    .populate = fake_populate,
    .barrier = fake_barrier,
    .guard = fake_guard,
    .now_ms = fake_now_ms,
    .thread_ns = fake_thread_ns,
};

const struct hak_os *hak_os_fake(void) { return &fake; }

void hak_os_fake_reset(size_t page_bytes) {
  for (size_t i = 0; i < HAK_OS_FAKE_CALLS; ++i) {
    hak_store_relaxed(&calls[i].count, 0);
    hak_store_relaxed(&calls[i].fail_count, 0);
    hak_store_relaxed(&calls[i].n_failed, 0);
  }
  hak_store_relaxed(&mapped_bytes, 0);
  hak_store_relaxed(&limit_bytes, SIZE_MAX);
  hak_store_relaxed(&purged_bytes, 0);
  hak_store_relaxed(&populated_bytes[false], 0);
  hak_store_relaxed(&populated_bytes[true], 0);
  hak_store_relaxed(&clock_ms, 0);
  hak_store_relaxed(&thread_clock_ns, 0);
  hak_os_fake_populate_takes(false, 0);
  hak_os_fake_populate_takes(true, 0);
  fake.page_bytes = hak_max(page_bytes, hak_os_linux()->page_bytes);
}

void hak_os_fake_fail(enum hak_os_fake_call call, size_t nth, size_t count) {
  hak_store_relaxed(&calls[call].fail_count, 0);
  hak_store_relaxed(&calls[call].fail_first, hak_load_relaxed(&calls[call].count) + nth);
  hak_store_relaxed(&calls[call].fail_count, count);
}

void hak_os_fake_limit(size_t bytes) { hak_store_relaxed(&limit_bytes, bytes); }

void hak_os_fake_succeed(void) {
  for (size_t i = 0; i < HAK_OS_FAKE_CALLS; ++i) hak_store_relaxed(&calls[i].fail_count, 0);
  hak_store_relaxed(&limit_bytes, SIZE_MAX);
}

size_t hak_os_fake_count(enum hak_os_fake_call call) { return hak_load_relaxed(&calls[call].count); }
size_t hak_os_fake_failed_count(enum hak_os_fake_call call) { return hak_load_relaxed(&calls[call].n_failed); }
size_t hak_os_fake_mapped_bytes(void) { return hak_load_relaxed(&mapped_bytes); }
size_t hak_os_fake_purged_bytes(void) { return hak_load_relaxed(&purged_bytes); }
size_t hak_os_fake_populated_bytes(bool huge) {
  return hak_load_relaxed(&populated_bytes[true]) + (huge ? 0 : hak_load_relaxed(&populated_bytes[false]));
}
void hak_os_fake_advance_ms(uint64_t ms) { hak_add_relaxed(&clock_ms, ms); }
void hak_os_fake_populate_takes(bool huge, uint64_t ns) { hak_store_relaxed(&populate_ns[huge], ns); }

// For the tests of heap/ and of the tiers above it: threads and a heap set over the fake operating system, what there
// is to know of a block, and what a tier of equal blocks promises.
#ifndef HAKMEM_HEAP_TEST_HEAP_H_
#define HAKMEM_HEAP_TEST_HEAP_H_

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "base/compiler.h"
#include "heap/heap.h"
#include "heap/slab.h"
#include "platform/lock.h"
#include "platform/os_fake.h"
#include "superslab/layout.h"
#include "superslab/pool.h"
#include "superslab/registry.h"

namespace hak_test {

constexpr uint32_t kKind = 4;  // 64-byte blocks
constexpr uint32_t kBytes = 16 * kKind;
constexpr size_t kRunBytes = size_t{1} << HAK_RUN_SHIFT_MIN;  // of Tiny, and of the first kinds of Mid
constexpr size_t kPageBytes = 4096;                           // unless a test says otherwise
constexpr uint32_t kMidKind = HAK_KIND_MID_LAST_CLASS;        // 32 KiB, the longest runs

// A geometry for each kind of Tiny and Mid: that of its class without colour, and for those beyond the classes that of
// the doubling's last.
inline hak_class ClassOf(uint32_t kind) {
  if (kind <= HAK_KIND_TINY_LAST) return hak_class_make(kind, 16 * kind);
  if (kind > HAK_KIND_MID_LAST_CLASS) return hak_class_make(kind, 1u << (hak_kind_32_blocks_shifts[kind] - 5));
  uint32_t index = kind - HAK_KIND_MID_FIRST;
  return hak_class_make(kind, (9 + index % 8) << (7 + index / 8));
}

// Why a test of the order of blocks is skipped.
constexpr const char *kDrawnOrder = "the hardened library draws the order in which blocks are handed out";

// Of the slab that `p` lies in.
inline hak_slab *SlabOf(const void *p) {
  size_t kind = hak_entry_kind(hak_registry_find(p));
  return hak_slab_at(hak_kind_run_base(kind, reinterpret_cast<uintptr_t>(p)));
}
inline hak_slab_remote *RemoteOf(const void *p) { return hak_slab_remote_at(SlabOf(p)->base); }
inline uint32_t OwnerOf(const void *p) { return hak_entry_owner(hak_registry_find(p)); }
inline uint64_t PublishedOf(const void *p) { return RemoteOf(p)->word >> HAK_REMOTE_COUNT_SHIFT; }

// A block that the thread has at hand, or null.
inline void *TakeAtHand(hak_cache *cache, uint32_t kind) {
  return kind < HAK_KIND_MID_FIRST ? hak_cache_pop(cache, kind) : hak_cache_pop_recent(cache, kind);
}

// A block of `kind`, or null if memory has run out.
inline void *Malloc(hak_cache *cache, uint32_t kind) {
  void *p = TakeAtHand(cache, kind);
  if (p != nullptr) return p;
  hak_class geometry = ClassOf(kind);
  return hak_heap_refill(cache, &geometry) ? TakeAtHand(cache, kind) : nullptr;
}

// As the router does: the block may become a recent one.
inline void FreeAsRecent(hak_cache *cache, void *p) {
  hak_cache_miss miss;
  if (hak_cache_push(cache, p, &miss) || hak_cache_push_recent(cache, p, miss)) return;
  hak_heap_free(cache, p, "free");
}

// A thread: its cache, from its first allocation to its end.
class Thread {
 public:
  explicit Thread(hak_heap_set *heaps) { EXPECT_TRUE(hak_heap_attach(heaps, &cache)); }
  ~Thread() {
    if (cache.heap != nullptr) hak_heap_detach(&cache);
  }
  Thread(const Thread &) = delete;
  Thread &operator=(const Thread &) = delete;

  void *Malloc(uint32_t kind) { return hak_test::Malloc(&cache, kind); }

  std::vector<void *> MallocMany(uint32_t kind, size_t count) {
    std::vector<void *> blocks;
    for (size_t i = 0; i < count; ++i) blocks.push_back(Malloc(kind));
    return blocks;
  }

  // All blocks of one slab, and with another one the thread's current slab is a different one.
  std::vector<void *> MallocSlab(uint32_t kind) { return MallocMany(kind, ClassOf(kind).n_blocks); }

  // To the list, or to the block's slab: most tests are about slabs, from which recent blocks would be missing.
  void Free(void *p) {
    hak_cache_miss miss;
    if (!hak_cache_push(&cache, p, &miss)) hak_heap_free(&cache, p, "free");
  }

  void FreeAsRecent(void *p) { hak_test::FreeAsRecent(&cache, p); }

  void FreeAll(const std::vector<void *> &blocks) {
    for (void *p : blocks) Free(p);
  }

  hak_cache cache = HAK_CACHE_INIT;
};

// Fills slabs of `kind`, and one block of another, which is then the current one; `other` frees all but the first of
// each slab. Those that are left.
inline std::vector<void *> ThinOut(Thread *owner, Thread *other, uint32_t kind, size_t n_slabs) {
  std::vector<void *> kept;
  for (void *p : owner->MallocMany(kind, n_slabs * ClassOf(kind).n_blocks + 1)) {
    if (kept.empty() || SlabOf(kept.back()) != SlabOf(p)) {
      kept.push_back(p);
    } else {
      other->Free(p);
    }
  }
  return kept;
}

class HeapTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(4096, HAK_REFILL_COUNT_DEFAULT, false); }

  void Start(size_t page_bytes, uint32_t refill_count, bool diet) {
    hak_os_fake_reset(page_bytes);
    hak_pool_init(&pool_, hak_os_fake());
    hak_heap_set_init(&heaps_, &pool_, refill_count, diet);
  }

  // Every test frees what it allocates, and then no slab may be left in use.
  void TearDown() override {
    hak_os_fake_succeed();
    hak_heap_set_trim(&heaps_, nullptr);
    EXPECT_EQ(pool_.n_slabs_used, 0u);
    ExpectNothingCounted(heaps_.public_heap);
    for (const hak_heap *heap = heaps_.husks; heap != nullptr; heap = heap->older) ExpectNothingCounted(heap);
    hak_pool_destroy(&pool_);
    EXPECT_EQ(pool_.n_superslabs, 0u);
    EXPECT_EQ(pool_.retain.unused_bytes, 0u);
    EXPECT_EQ(pool_.retain.limit.held_bytes, 0u);
  }

  bool TickAfter(uint64_t ms, const Thread &visitor) {
    hak_os_fake_advance_ms(ms);
    return hak_heap_set_tick(&heaps_, &visitor.cache);
  }

  // Where all runs in use are of the shortest.
  size_t RunsUsed() const { return pool_.n_slabs_used * HAK_SLAB_BYTES / kRunBytes; }

  static void ExpectNothingCounted(const hak_heap *heap) {
    if (heap == nullptr) return;
    EXPECT_EQ(heap->counted_bytes, 0u);
    for (const hak_bin &bin : heap->bin) EXPECT_EQ(bin.n_counted, 0u);
  }

  hak_pool pool_;
  hak_heap_set heaps_;
};

// How many caches of threads that are gone a fork's child was given.
inline int n_orphaned;
inline void CountOrphaned(hak_cache *cache) {
  EXPECT_EQ(cache->heap, nullptr);
  ++n_orphaned;
}

// Forks as router/process.c does, and runs `in_child` in the child; it returns whether all is well there. What locks
// are held on a way that does not return is unchecked.
template <typename F>
HAK_LOCKS_UNCHECKED void ExpectInChild(hak_heap_set *heaps, const hak_cache *cache, F in_child) {
  hak_heap_set_before_fork(heaps, cache);
  hak_pool_lock(heaps->pool);
  hak_lock_all_held = true;
  pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    hak_heap_set_orphan_all(heaps, cache, CountOrphaned);
    hak_lock_all_held = false;
    hak_pool_unlock(heaps->pool);
    hak_heap_set_after_fork_in_child(heaps);
    _exit(in_child() ? 0 : 1);
  }
  hak_lock_all_held = false;
  hak_pool_unlock(heaps->pool);
  hak_heap_set_after_fork_in_parent(heaps);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// A tier of equal blocks, as its test describes it.
struct BlockTier {
  size_t size_min, size_max;     // for which kind_of is defined
  size_t kind_first, kind_last;  // of the classes
  size_t (*kind_of)(size_t size);
  size_t (*size_of)(size_t kind);  // the largest that the class serves
  size_t (*bytes_of)(size_t kind);
  void *(*malloc)(hak_cache *cache, size_t size);
  void *(*malloc_aligned)(hak_cache *cache, size_t size, size_t alignment);
  void (*free)(hak_cache *cache, void *p);
};

class BlockTierTest : public HeapTest {
 protected:
  explicit BlockTierTest(const BlockTier &tier) : tier_(tier) {}

  void SetUp() override {
    HeapTest::SetUp();
    ASSERT_TRUE(hak_heap_attach(&heaps_, &cache_));
  }
  void TearDown() override {
    hak_heap_detach(&cache_);
    HeapTest::TearDown();
  }

  void *Malloc(size_t size) { return tier_.malloc(&cache_, size); }
  void *MallocAligned(size_t size, size_t alignment) { return tier_.malloc_aligned(&cache_, size, alignment); }
  void Free(void *p) { tier_.free(&cache_, p); }

  static size_t KindOf(const void *p) { return hak_entry_kind(hak_registry_find(p)); }
  size_t UsableBytes(const void *p) { return tier_.bytes_of(KindOf(p)); }

  void ExpectConsistentKinds() {
    EXPECT_EQ(tier_.kind_of(tier_.size_min), tier_.kind_first);
    EXPECT_EQ(tier_.kind_of(tier_.size_max), tier_.kind_last);
    EXPECT_EQ(tier_.size_of(tier_.kind_last), tier_.size_max);
    for (size_t kind = tier_.kind_first; kind <= tier_.kind_last; ++kind) {
      EXPECT_EQ(tier_.kind_of(tier_.size_of(kind)), kind);
    }
    for (size_t kind = tier_.kind_first; kind < tier_.kind_last; ++kind) {
      EXPECT_EQ(tier_.kind_of(tier_.size_of(kind) + 1), kind + 1);
    }
    for (size_t size = tier_.size_min; size < tier_.size_max; ++size) {
      ASSERT_GE(tier_.bytes_of(tier_.kind_of(size)), size);
      ASSERT_GE(tier_.kind_of(size + 1), tier_.kind_of(size));
    }
  }

  // For a full run of each kind and a bit of the next: where blocks lie, and how much of the run they fill.
  void ExpectAlignedBlocksThatFillTheirRuns(double least_filled) {
    for (size_t kind = tier_.kind_first; kind <= tier_.kind_last; ++kind) {
      ExpectAlignedBlocksThatFillTheirRun(kind, least_filled, [&](size_t) { return Malloc(tier_.size_of(kind)); });
    }
  }

  // The same for one kind, of which `allocate` gives a block, told its bytes.
  template <typename Allocate>
  void ExpectAlignedBlocksThatFillTheirRun(size_t kind, double least_filled, Allocate allocate) {
    SCOPED_TRACE(kind);
    size_t bytes = tier_.bytes_of(kind);
    hak_class geometry = hak_class_make(static_cast<uint32_t>(kind), static_cast<uint32_t>(bytes));
    EXPECT_GE(static_cast<double>(geometry.n_blocks * bytes),
              least_filled * static_cast<double>(geometry.n_slabs * HAK_SLAB_BYTES));
    std::vector<void *> blocks;
    for (uint32_t i = 0; i < geometry.n_blocks + 2; ++i) blocks.push_back(allocate(bytes));
    for (void *p : blocks) {
      auto address = reinterpret_cast<uintptr_t>(p);
      ASSERT_EQ(KindOf(p), kind);
      ASSERT_EQ(hak_registry_find(static_cast<char *>(p) + bytes - 1), hak_registry_find(p));
      ASSERT_EQ(address % hak_class_alignment(geometry.kind, geometry.block_bytes), 0u);
      ASSERT_EQ(address % 16, 0u);
      ASSERT_NE(address & HAK_RUN_OFFSET_MASK, 0u);
    }
    for (void *p : blocks) Free(p);
  }

  // The largest class has a run, the smaller ones take what runs there are, and the next finds none.
  void ExpectALargerClassServesWhereThereIsNoRun(void *(*malloc_any)(hak_cache *cache, size_t size)) {
    void *large = Malloc(tier_.size_max);
    hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
    std::vector<void *> blocks = {large};
    size_t size = tier_.size_min;
    while (void *p = Malloc(size)) {
      blocks.push_back(p);
      size = UsableBytes(p) + 1;
    }
    ASSERT_LT(size, tier_.size_max);
    blocks.push_back(malloc_any(&cache_, size));
    ASSERT_NE(blocks.back(), nullptr);
    EXPECT_EQ(KindOf(blocks.back()), KindOf(large));
    hak_os_fake_succeed();
    for (void *p : blocks) Free(p);
  }

  // A random program, in which every byte that may be used is used.
  void ExpectBlocksThatNeverOverlap(unsigned seed) {
    std::mt19937 random(seed);
    struct Block {
      unsigned char *p;
      size_t bytes;
      unsigned char pattern;
    };
    std::map<uintptr_t, uintptr_t> ranges;  // start to end
    std::vector<Block> blocks;
    for (int step = 0; step < 20000; ++step) {
      if (blocks.size() < 500 && random() % 5 < 3) {
        size_t size = random() % (tier_.size_max + 1);
        size_t alignment = random() % 4 == 0 ? size_t{16} << random() % 6 : 16;
        auto *p = static_cast<unsigned char *>(alignment == 16 ? Malloc(size) : MallocAligned(size, alignment));
        ASSERT_NE(p, nullptr);
        Block block = {p, UsableBytes(p), static_cast<unsigned char>(random())};
        ASSERT_GE(block.bytes, size);
        auto start = reinterpret_cast<uintptr_t>(p);
        ASSERT_EQ(start % alignment, 0u);
        auto after = ranges.lower_bound(start);
        ASSERT_TRUE(after == ranges.end() || start + block.bytes <= after->first);
        ASSERT_TRUE(after == ranges.begin() || std::prev(after)->second <= start);
        ranges[start] = start + block.bytes;
        memset(p, block.pattern, block.bytes);
        blocks.push_back(block);
      } else if (!blocks.empty()) {
        std::swap(blocks[random() % blocks.size()], blocks.back());
        Block block = blocks.back();
        blocks.pop_back();
        ASSERT_EQ(block.p[0], block.pattern);
        ASSERT_EQ(memcmp(block.p, block.p + 1, block.bytes - 1), 0);
        ranges.erase(reinterpret_cast<uintptr_t>(block.p));
        Free(block.p);
      }
    }
    for (const Block &block : blocks) Free(block.p);
  }

  void ExpectAnswersNullWithoutMemoryAndServesAfterwards() {
    hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, SIZE_MAX);
    EXPECT_EQ(Malloc(tier_.size_max), nullptr);
    EXPECT_EQ(Malloc(tier_.size_min), nullptr);
    EXPECT_EQ(MallocAligned(tier_.size_min, 64), nullptr);
    hak_os_fake_succeed();
    void *p = Malloc(tier_.size_max);
    ASSERT_NE(p, nullptr);
    Free(p);
  }

  void ExpectAnotherThreadMayFree() {
    hak_cache other = HAK_CACHE_INIT;
    ASSERT_TRUE(hak_heap_attach(&heaps_, &other));
    for (size_t kind = tier_.kind_first; kind <= tier_.kind_last; ++kind) {
      std::vector<void *> blocks;
      for (int i = 0; i < 40; ++i) blocks.push_back(Malloc(tier_.size_of(kind)));
      for (void *p : blocks) tier_.free(&other, p);
    }
    hak_heap_detach(&other);
  }

  const BlockTier tier_;
  hak_cache cache_ = HAK_CACHE_INIT;
};

}  // namespace hak_test

#endif  // HAKMEM_HEAP_TEST_HEAP_H_

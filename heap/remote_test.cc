// Blocks that a thread frees in another one's slab: the outbox, publication and mail, one step at a time. A test plays
// several threads by turns; heap_threads_test has real ones.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "heap/heap.h"
#include "heap/test_heap.h"
#include "platform/os_fake.h"
#include "superslab/registry.h"

namespace {

using hak_test::kKind;
using hak_test::kMidKind;
using hak_test::PublishedOf;
using hak_test::RemoteOf;
using hak_test::SlabOf;
using hak_test::ThinOut;
using hak_test::Thread;

using Heap = hak_test::HeapTest;

TEST_F(Heap, GathersRemoteFreesUntilASlotIsFull) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kKind, 40);
  for (int i = 0; i < 32; ++i) {
    other.Free(blocks[i]);
    EXPECT_EQ(PublishedOf(blocks[0]), 0u);
  }
  other.Free(blocks[32]);
  EXPECT_EQ(PublishedOf(blocks[0]), 32u);
  hak_heap_flush(&other.cache);
  EXPECT_EQ(PublishedOf(blocks[0]), 33u);
  for (int i = 33; i < 40; ++i) owner.Free(blocks[i]);
}

// Of kMidKind, in 64 KiB.
constexpr uint64_t kHeldBack = 4;

TEST_F(Heap, HoldsBackFewerBlocksTheLargerTheyAre) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kMidKind, 2 * kHeldBack + 1);
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    other.Free(blocks[i]);
    EXPECT_EQ(PublishedOf(blocks[0]), i / kHeldBack * kHeldBack);
  }
}

TEST_F(Heap, HoldsBackByTheSizeThatASlabHasNowAndNotByAnEarlierOne) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  void *small = owner.Malloc(1);
  uintptr_t run = hak_kind_run_base(kMidKind, reinterpret_cast<uintptr_t>(small));
  other.Free(small);
  hak_heap_flush(&other.cache);
  hak_heap_detach(&owner.cache);
  hak_heap_set_trim(&heaps_, nullptr);
  ASSERT_EQ(pool_.n_slabs_used, 0u);
  ASSERT_TRUE(hak_heap_attach(&heaps_, &owner.cache));

  std::vector<void *> large = owner.MallocMany(kMidKind, kHeldBack + 1);
  ASSERT_EQ(SlabOf(large[0])->base, run) << "the test needs the same address";
  other.FreeAll(large);
  EXPECT_EQ(PublishedOf(large[0]), kHeldBack);
}

TEST_F(Heap, AgeBringsOutWhatALonelySlotHolds) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  auto slot_of = [&](void *p) { return hak_outbox_slot_of(other.cache.seat, SlabOf(p)->base); };
  void *lonely = owner.Malloc(kKind);
  std::vector<void *> blocks;
  while (blocks.size() < HAK_OUTBOX_SLOTS * HAK_OUTBOX_AGE) {
    void *p = owner.Malloc(kKind + 1);
    if (slot_of(p) == slot_of(lonely)) continue;
    blocks.push_back(p);
  }
  other.Free(lonely);
  EXPECT_EQ(PublishedOf(lonely), 0u);
  other.FreeAll(blocks);
  EXPECT_EQ(PublishedOf(lonely), 1u);
}

TEST_F(Heap, MailsASlabOnceHoweverManyPublicationsItGets) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  Thread another(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kKind, 6);
  for (int i = 0; i < 6; ++i) {
    Thread &thread = i % 2 == 0 ? other : another;
    thread.Free(blocks[i]);
    hak_heap_flush(&thread.cache);
    EXPECT_EQ(owner.cache.heap->mail, RemoteOf(blocks[0]));
    EXPECT_EQ(owner.cache.heap->mail->mail_next, nullptr);
  }
  EXPECT_EQ(PublishedOf(blocks[0]), 6u);
}

TEST_F(Heap, MuchMailIsCollectedBitByBit) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  const hak_heap *heap = owner.cache.heap;
  std::vector<void *> kept = ThinOut(&owner, &other, kMidKind, 100);
  hak_heap_flush(&other.cache);
  // Each refill is of another kind, whose list is empty.
  uint32_t n_refills = 0;
  do kept.push_back(owner.Malloc(kKind + n_refills++));
  while (heap->opened_mail != nullptr);
  EXPECT_GT(n_refills, 2u);
  EXPECT_EQ(heap->mail, nullptr);
  owner.FreeAll(kept);
}

TEST_F(Heap, ASlabThatIsAboutToBeMailedIsNotReleased) {
  Thread owner(&heaps_);
  std::vector<void *> blocks = owner.MallocSlab(kKind);
  std::vector<void *> others = owner.MallocSlab(kKind);
  void *of_current = owner.Malloc(kKind);
  // As if another thread had published, the blocks had been collected while the slab was current, and the mail was
  // still to come.
  hak_slab_remote *remote = RemoteOf(blocks[0]);
  remote->word |= HAK_REMOTE_IN_MAIL;
  owner.FreeAll(others);
  owner.FreeAll(blocks);
  EXPECT_NE(hak_registry_find(blocks[0]), 0u) << "released when it became empty";
  hak_heap_trim(&owner.cache);
  EXPECT_NE(hak_registry_find(blocks[0]), 0u) << "released by the trim";

  remote->mail_next = owner.cache.heap->mail;
  owner.cache.heap->mail = remote;
  hak_heap_trim(&owner.cache);
  EXPECT_EQ(hak_registry_find(blocks[0]), 0u);
  owner.Free(of_current);
}

TEST_F(Heap, TheOwnerReusesWhatOthersFreedBeforeItGrows) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> blocks = owner.MallocSlab(kKind);
  for (int round = 0; round < 50; ++round) {
    other.FreeAll(blocks);
    hak_heap_flush(&other.cache);
    blocks = owner.MallocSlab(kKind);
  }
  // A batch may be missed by the look at the remote list that sends the slab to sleep.
  EXPECT_LE(RunsUsed(), 2u);
  owner.FreeAll(blocks);
}

TEST_F(Heap, TheOwnerFindsFullSlabsThatOthersHaveFreed) {
  Thread owner(&heaps_);
  Thread other(&heaps_);
  std::vector<void *> first = owner.MallocSlab(kKind);
  std::vector<void *> second = owner.MallocSlab(kKind);
  std::vector<void *> third = owner.MallocSlab(kKind);
  other.FreeAll(first);
  other.FreeAll(second);
  hak_heap_flush(&other.cache);
  first = owner.MallocSlab(kKind);
  second = owner.MallocSlab(kKind);
  EXPECT_EQ(RunsUsed(), 3u);
  for (auto *blocks : {&first, &second, &third}) owner.FreeAll(*blocks);
}

TEST_F(Heap, ForwardsMailThatArrivesAfterASlabHasChangedHands) {
  Thread first(&heaps_);
  Thread second(&heaps_);
  Thread third(&heaps_);
  std::vector<void *> blocks = first.MallocMany(kKind, 100);
  third.Free(blocks.back());
  hak_heap_flush(&third.cache);  // in the mail of the first
  blocks.pop_back();
  hak_heap_detach(&first.cache);
  hak_os_fake_advance_ms(HAK_HEAP_ORPHAN_GRACE_MS);
  void *p = second.Malloc(kKind);
  EXPECT_EQ(SlabOf(p), SlabOf(blocks[0]));
  EXPECT_EQ(RemoteOf(p)->owner, second.cache.heap);
  second.Free(p);

  // Mail that was addressed before the slab changed hands.
  third.Free(blocks.back());
  hak_heap_flush(&third.cache);
  hak_slab_remote *mail = second.cache.heap->mail;
  ASSERT_EQ(mail, RemoteOf(blocks[0]));
  second.cache.heap->mail = nullptr;
  ASSERT_TRUE(hak_heap_attach(&heaps_, &first.cache));
  first.cache.heap->mail = mail;
  hak_heap_trim(&first.cache);
  EXPECT_EQ(first.cache.heap->mail, nullptr);
  EXPECT_EQ(second.cache.heap->mail, mail);
  blocks.pop_back();
  second.FreeAll(blocks);
}

TEST_F(Heap, ACacheWithoutAHeapPublishesEachBlockAtOnce) {
  Thread owner(&heaps_);
  std::vector<void *> blocks = owner.MallocMany(kKind, 3);
  hak_cache ended = HAK_CACHE_INIT;
  for (uint64_t i = 0; i < blocks.size(); ++i) {
    hak_heap_free(&ended, blocks[i], "free");
    EXPECT_EQ(PublishedOf(blocks[0]), i + 1);
  }
}

}  // namespace

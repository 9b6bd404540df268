// The registry: every address has one answer, and none but ours is claimed.
#include "superslab/registry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "base/compiler.h"
#include "platform/os_fake.h"
#include "superslab/pool.h"
#include "superslab/test_registry.h"

namespace {

constexpr uint64_t kRegionBytes = uint64_t{1} << HAK_REGION_SHIFT;

// What is mapped for a region's descriptors: in the hardened library between two guard pages.
constexpr size_t kRegionMappedBytes = sizeof(hak_region) + (HAK_CONFIG_HARDENED ? 2 * 4096 : 0);

uint32_t Find(uint64_t address) { return hak_registry_find(reinterpret_cast<const void *>(address)); }

bool IsCovered(uintptr_t address) {
  return hak_load_relaxed(&hak_registry.region_offset[address >> HAK_REGION_SHIFT]) != 0;
}

// The start of a region that nobody has used, where sanitizers let memory be mapped as well.
uintptr_t UnusedRegion() {
  uintptr_t base = 0x7ea000000000;
  while (IsCovered(base)) base += kRegionBytes;
  return base;
}

uintptr_t raced_region;

// The kernel, while another thread covers raced_region and is faster.
void *MapAfterTheOther(void *hint, size_t bytes) {
  hak_registry_cover(hak_os_fake(), raced_region);
  return hak_os_fake()->map(hint, bytes);
}

std::atomic<bool> is_purging;

// The kernel, when it is slow enough for another thread to come in between.
bool PurgeSlowly(void *start, size_t bytes) {
  is_purging = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return hak_os_fake()->purge(start, bytes);
}

class Registry : public ::testing::Test {
 protected:
  void SetUp() override { hak_os_fake_reset(4096); }
  void TearDown() override { EXPECT_EQ(hak_test::CountCovers(), 0u); }

  const struct hak_os *os_ = hak_os_fake();
};

TEST_F(Registry, KnowsNoAddressOfAnEmptyProcess) {
  const uint64_t around[] = {0, 1, 8, 16, 4095, 65535, 65536, 65537};
  for (uint64_t region = 0; region <= HAK_REGIONS; ++region) {
    for (uint64_t distance : around) {
      ASSERT_EQ(Find(region * kRegionBytes + distance), 0u) << region << " + " << distance;
      ASSERT_EQ(Find(region * kRegionBytes - distance), 0u) << region << " - " << distance;
    }
  }
}

TEST_F(Registry, KnowsNoPointerThatIsNotAnAddress) {
  for (int bit = 0; bit < 64; ++bit) {
    EXPECT_EQ(Find(uint64_t{1} << bit), 0u) << bit;
    EXPECT_EQ(Find(~(uint64_t{1} << bit)), 0u) << bit;
    EXPECT_EQ(Find(~uint64_t{0} << bit), 0u) << bit;
  }
  std::mt19937_64 random(2);
  for (int i = 0; i < 1000000; ++i) {
    uint64_t bits = random() >> (i % 18);
    ASSERT_EQ(Find(bits), 0u) << std::hex << bits;
  }
}

TEST_F(Registry, KnowsNeitherTheStackNorTheHeapNorCodeNorItself) {
  int on_stack = 0;
  void *on_heap = malloc(100);
  EXPECT_EQ(hak_registry_find(&on_stack), 0u);
  EXPECT_EQ(hak_registry_find(on_heap), 0u);
  EXPECT_EQ(hak_registry_find(reinterpret_cast<void *>(&malloc)), 0u);
  EXPECT_EQ(hak_registry_find(&hak_registry), 0u);
  free(on_heap);
}

TEST_F(Registry, KnowsExactlyTheSlabsThatWereSet) {
  uintptr_t base = UnusedRegion() + 7 * HAK_SLAB_BYTES;
  ASSERT_TRUE(hak_registry_cover(os_, base));
  const uint32_t entry = hak_entry_make(0xabcdefu * HAK_OWNER_STEP, 104);
  hak_registry_set(base, 4, entry);
  EXPECT_EQ(Find(base - 1), 0u);
  for (uintptr_t address = base; address < base + 4 * HAK_SLAB_BYTES; address += HAK_SLAB_BYTES / 4) {
    EXPECT_EQ(Find(address), entry);
    EXPECT_EQ(Find(address + HAK_SLAB_BYTES / 4 - 1), entry);
    EXPECT_EQ(hak_registry_kind(reinterpret_cast<void *>(address)), 104u);
    // The same low bits, but not an address of this process: the kind alone cannot tell, the entry does.
    EXPECT_EQ(Find(address | uint64_t{1} << 47), 0u);
    EXPECT_EQ(Find(address | uint64_t{1} << 63), 0u);
  }
  EXPECT_EQ(Find(base + 4 * HAK_SLAB_BYTES), 0u);

  hak_registry_set(base, 4, 0);
  for (uintptr_t address = base; address < base + 4 * HAK_SLAB_BYTES; address += HAK_SLAB_BYTES) {
    EXPECT_EQ(Find(address), 0u);
  }
  hak_registry_uncover(os_, base);
}

TEST_F(Registry, LeadsFromTheHotPathsLookUpToTheSameEntryAndDescriptors) {
  uintptr_t region = UnusedRegion();
  for (uintptr_t base : {region, region + 7 * HAK_SUPERSLAB_BYTES, region + kRegionBytes - 16 * HAK_SLAB_BYTES}) {
    ASSERT_TRUE(hak_registry_cover(os_, base));
    for (size_t slab = 0; slab < 16; ++slab) {
      uintptr_t address = base + slab * HAK_SLAB_BYTES + 0x1230;
      hak_registry_place place;
      hak_registry_look_up(reinterpret_cast<void *>(address), &place);
      const uint32_t *entry = hak_registry_entry_at(place);
      EXPECT_EQ(entry, hak_registry_entry(reinterpret_cast<void *>(address)));
      uint32_t offset = static_cast<uint32_t>(address - base);
      EXPECT_EQ(hak_slab_private_descriptor_beside(entry, address, offset), hak_slab_private_descriptor(base));
    }
    hak_registry_uncover(os_, base);
  }
}

TEST_F(Registry, KnowsTheFirstAndTheLastSlabOfARegion) {
  uintptr_t region = UnusedRegion();
  ASSERT_TRUE(hak_registry_cover(os_, region));
  uintptr_t last = region + kRegionBytes - HAK_SLAB_BYTES;
  hak_registry_set(region, 1, 1);
  hak_registry_set(last, 1, 2);
  EXPECT_EQ(Find(region), 1u);
  EXPECT_EQ(Find(region - 1), 0u);
  EXPECT_EQ(Find(last + HAK_SLAB_BYTES - 1), 2u);
  EXPECT_EQ(Find(last + HAK_SLAB_BYTES), 0u);
  hak_registry_set(region, 1, 0);
  hak_registry_set(last, 1, 0);
  hak_registry_uncover(os_, region);
}

TEST_F(Registry, KeepsOwnerAndKindOfAnEntryApart) {
  const uint32_t largest_owner = 0xffffff;
  for (uint32_t number : {0u, 1u, 255u, 256u, largest_owner}) {
    uint32_t owner = number * HAK_OWNER_STEP;
    for (uint32_t kind = 0; kind < HAK_KINDS; ++kind) {
      uint32_t entry = hak_entry_make(owner, kind);
      EXPECT_EQ(hak_entry_owner(entry), owner);
      EXPECT_EQ(hak_entry_kind(entry), kind);
    }
  }
}

TEST_F(Registry, MapsARegionOnceAndNotAgain) {
  uintptr_t region = UnusedRegion();
  ASSERT_TRUE(hak_registry_cover(os_, region));
  ASSERT_TRUE(hak_registry_cover(os_, region + kRegionBytes - 1));
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_MAP), 1u);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), kRegionMappedBytes);
  hak_registry_uncover(os_, region);
  hak_registry_uncover(os_, region + kRegionBytes - 1);
}

TEST_F(Registry, LeavesARegionUncoveredWhenMemoryRanOutAndCoversItLater) {
  uintptr_t region = UnusedRegion();
  hak_os_fake_fail(HAK_OS_FAKE_MAP, 1, 1);
  EXPECT_FALSE(hak_registry_cover(os_, region));
  EXPECT_FALSE(IsCovered(region));
  EXPECT_EQ(Find(region), 0u);
  EXPECT_TRUE(hak_registry_cover(os_, region));
  EXPECT_TRUE(IsCovered(region));
  hak_registry_uncover(os_, region);
}

TEST_F(Registry, GivesEverySlabDescriptorsOfItsOwn) {
  uintptr_t region = UnusedRegion();
  ASSERT_TRUE(hak_registry_cover(os_, region));
  hak_region *memory = hak_region_of(region);
  for (uintptr_t slab : {size_t{0}, size_t{1}, size_t{31}, size_t{32}, HAK_REGION_SLABS - 1}) {
    uintptr_t address = region + slab * HAK_SLAB_BYTES;
    for (uintptr_t inside : {address, address + HAK_SLAB_BYTES - 1}) {
      EXPECT_EQ(hak_region_of(inside), memory);
      EXPECT_EQ(hak_slab_private_descriptor(inside), &memory->slab_private[slab]);
      EXPECT_EQ(hak_slab_shared_descriptor(inside), &memory->slab_shared[slab]);
      EXPECT_EQ(static_cast<void *>(hak_superslab_descriptor(inside)), &memory->superslab[slab / 32]);
    }
  }
  hak_registry_uncover(os_, region);
}

// Sections

constexpr size_t kSectionBytes = size_t{1} << HAK_SECTION_SHIFT;
constexpr size_t kPurgedBytes =
    HAK_SECTION_SLABS * (sizeof(uint32_t) + 2 * HAK_DESCRIPTOR_BYTES) + (HAK_CONFIG_HARDENED ? kSectionBytes / 128 : 0);

// Writes all that the registry has for the slab at `base`, and says whether it is still there.
void Fill(uintptr_t base, unsigned char pattern) {
  hak_registry_set(base, 1, pattern);
  memset(hak_slab_private_descriptor(base), pattern, HAK_DESCRIPTOR_BYTES);
  memset(hak_slab_shared_descriptor(base), pattern, HAK_DESCRIPTOR_BYTES);
}

bool IsFilled(uintptr_t base, unsigned char pattern) {
  const unsigned char *descriptors[] = {static_cast<unsigned char *>(hak_slab_private_descriptor(base)),
                                        static_cast<unsigned char *>(hak_slab_shared_descriptor(base))};
  for (const unsigned char *bytes : descriptors) {
    if (std::any_of(bytes, bytes + HAK_DESCRIPTOR_BYTES, [=](unsigned char c) { return c != pattern; })) return false;
  }
  return Find(base) == pattern;
}

TEST_F(Registry, GivesTheMemoryOfASectionBackWithTheLastThatIsCoveredThere) {
  const uintptr_t section = UnusedRegion() + 5 * kSectionBytes;
  const uintptr_t first = section;
  const uintptr_t last = section + kSectionBytes - HAK_SUPERSLAB_BYTES;
  const uintptr_t neighbours[] = {section - HAK_SUPERSLAB_BYTES, section + kSectionBytes};
  for (uintptr_t base : {first, last, neighbours[0], neighbours[1]}) {
    ASSERT_TRUE(hak_registry_cover(os_, base));
    Fill(base, 0x5a);
    Fill(base + HAK_SUPERSLAB_BYTES - HAK_SLAB_BYTES, 0x5a);
  }
  hak_registry_uncover(os_, first);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
  EXPECT_TRUE(IsFilled(last, 0x5a));

  hak_registry_uncover(os_, last);
  EXPECT_EQ(hak_os_fake_purged_bytes(), kPurgedBytes);
  EXPECT_TRUE(IsFilled(first, 0));
  EXPECT_TRUE(IsFilled(last + HAK_SUPERSLAB_BYTES - HAK_SLAB_BYTES, 0));
  EXPECT_TRUE(IsFilled(neighbours[0] + HAK_SUPERSLAB_BYTES - HAK_SLAB_BYTES, 0x5a));
  EXPECT_TRUE(IsFilled(neighbours[1], 0x5a));

  ASSERT_TRUE(hak_registry_cover(os_, last));
  Fill(last, 0x77);
  hak_registry_uncover(os_, last);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 2 * kPurgedBytes);
  for (uintptr_t base : neighbours) hak_registry_uncover(os_, base);
}

TEST_F(Registry, KeepsASectionThatIsNotWholePages) {
  const uintptr_t base = UnusedRegion();
  ASSERT_TRUE(hak_registry_cover(os_, base));
  Fill(base, 0x5a);
  hak_os_fake_reset(2 * 1024 * 1024);
  hak_registry_uncover(os_, base);
  EXPECT_EQ(hak_os_fake_purged_bytes(), 0u);
}

TEST_F(Registry, NeverTakesTheMemoryOfWhatAnotherThreadCoversMeanwhile) {
  const uintptr_t section = UnusedRegion();
  ASSERT_TRUE(hak_registry_cover(os_, section));
  struct hak_os os = *hak_os_fake();
  os.purge = PurgeSlowly;
  is_purging = false;
  std::thread other([section] {
    while (!is_purging) std::this_thread::yield();
    EXPECT_TRUE(hak_registry_cover(hak_os_fake(), section + HAK_SUPERSLAB_BYTES));
    Fill(section + HAK_SUPERSLAB_BYTES, 0x5a);
  });
  hak_registry_uncover(&os, section);
  other.join();
  EXPECT_EQ(hak_os_fake_purged_bytes(), kPurgedBytes);
  EXPECT_TRUE(IsFilled(section + HAK_SUPERSLAB_BYTES, 0x5a));
  hak_registry_uncover(os_, section + HAK_SUPERSLAB_BYTES);
}

TEST_F(Registry, SurvivesTwoPoolsThatRaceForTheSameRegion) {
  constexpr int kRegions = 40;
  const uintptr_t first_region = UnusedRegion();
  std::atomic<int> arrived{0};
  auto run = [&](uintptr_t offset) {
    hak_pool pool;
    hak_pool_init(&pool, hak_os_fake());
    for (int i = 0; i < kRegions; ++i) {
      ++arrived;
      while (arrived.load() < 2 * (i + 1)) std::this_thread::yield();
      pool.last_mapped = first_region + static_cast<uintptr_t>(i) * kRegionBytes + offset;
      uintptr_t base = hak_pool_acquire(&pool, 32, HAK_DEMAND_LITTLE, nullptr);
      EXPECT_NE(base, 0u);
      hak_registry_set(base, 32, hak_entry_make(HAK_OWNER_STEP, 1));
      EXPECT_EQ(Find(base), hak_entry_make(HAK_OWNER_STEP, 1));
      hak_registry_set(base, 32, 0);
      hak_pool_release(&pool, base, 32, true);
      hak_pool_trim(&pool, 0);
      EXPECT_EQ(pool.n_superslabs, 0u);
    }
    hak_pool_destroy(&pool);
  };
  std::thread other(run, kRegionBytes / 4);
  run(kRegionBytes / 2);
  other.join();
  // Of each region one copy is left, whoever came first; nothing else is.
  EXPECT_EQ(hak_os_fake_mapped_bytes() % kRegionMappedBytes, 0u);
  EXPECT_LE(hak_os_fake_mapped_bytes(), kRegions * kRegionMappedBytes);
}

TEST_F(Registry, WhoComesSecondGivesItsCopyOfARegionBack) {
  raced_region = UnusedRegion();
  struct hak_os os = *hak_os_fake();
  os.map = MapAfterTheOther;
  EXPECT_TRUE(hak_registry_cover(&os, raced_region));
  EXPECT_TRUE(IsCovered(raced_region));
  EXPECT_EQ(hak_os_fake_count(HAK_OS_FAKE_MAP), 2u);
  EXPECT_EQ(hak_os_fake_mapped_bytes(), kRegionMappedBytes);
  hak_registry_uncover(&os, raced_region);
  hak_registry_uncover(os_, raced_region);
}

}  // namespace

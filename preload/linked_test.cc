// Programs that are linked with //preload:malloc instead of preloading the library, dynamic and fully static.
#include <errno.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "preload/test_process.h"
#include "router/hakmem.h"

// Not in the headers of every glibc.
extern "C" {
void free_sized(void *p, size_t size);
void free_aligned_sized(void *p, size_t alignment, size_t size);
void *__libc_malloc(size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);
}

namespace {

using hak_test::Opaque;

std::string Owner(const void *p) {
  const char *tier = hak_owner(p);
  return tier == nullptr ? "" : tier;
}

TEST(Linked, TheFamilyIsHakmems) {
  void *out = nullptr;
  ASSERT_EQ(posix_memalign(&out, 64, 100), 0);
  for (void *p :
       {malloc(100), calloc(10, 10), realloc(nullptr, 100), reallocarray(nullptr, 10, 10), aligned_alloc(64, 100),
        memalign(64, 100), valloc(100), pvalloc(100), out, static_cast<void *>(strdup("text"))}) {
    EXPECT_NE(Owner(Opaque(p)), "");
    EXPECT_GE(malloc_usable_size(p), 4u);
    free(p);
  }
  EXPECT_EQ(Owner(&out), "");
  malloc_trim(0);
}

TEST(Linked, TheRestOfTheFamilyIsHakmems) {
  void *p = Opaque(__libc_malloc(100));
  EXPECT_EQ(Owner(p), "tiny");
  free_sized(p, 100);
  p = Opaque(__libc_memalign(256, 5000));
  EXPECT_EQ(Owner(p), "mid");
  free_aligned_sized(p, 256, 5000);
  p = Opaque(malloc(3 << 20));
  EXPECT_EQ(mallinfo2().hblkhd, size_t{3} << 20);
  __libc_free(p);
  EXPECT_EQ(mallinfo2().hblkhd, 0u);
  EXPECT_EQ(mallopt(M_MMAP_MAX, 0), 0);

  char *text = nullptr;
  size_t length = 0;
  FILE *stream = open_memstream(&text, &length);
  EXPECT_EQ(malloc_info(0, stream), 0);
  fclose(stream);
  EXPECT_EQ(std::string(text).rfind("<malloc version=\"hakmem-1\">", 0), 0u);
  free(text);
}

TEST(Linked, OperatorNewIsHakmems) {
  constexpr auto kAlignment = std::align_val_t{128};
  void *p = Opaque(::operator new(100));
  EXPECT_EQ(Owner(p), "tiny");
  ::operator delete (p, size_t{100});
  p = Opaque(::operator new[](100, std::nothrow));
  EXPECT_EQ(Owner(p), "tiny");
  ::operator delete[](p);
  p = Opaque(::operator new(100, kAlignment));
  EXPECT_NE(Owner(p), "");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 128, 0u);
  ::operator delete(p, kAlignment);
  auto text = std::make_unique<std::string>(5000, 'x');
  EXPECT_EQ(Owner(text->data()), "mid");
}

TEST(Linked, RunningOutThrowsOrGivesNull) {
  size_t too_large = size_t{1} << 60;
  asm volatile("" : "+r"(too_large));
  errno = 0;
  EXPECT_EQ(Opaque(malloc(too_large)), nullptr);
  EXPECT_EQ(errno, ENOMEM);
  EXPECT_THROW(Opaque(::operator new(too_large)), std::bad_alloc);
  std::vector<char> bytes;
  EXPECT_THROW(bytes.reserve(too_large); Opaque(&bytes), std::bad_alloc);
  EXPECT_EQ(Opaque(::operator new(too_large, std::nothrow)), nullptr);

  static int calls;
  std::set_new_handler([] {
    if (++calls == 3) std::set_new_handler(nullptr);
  });
  EXPECT_THROW(Opaque(::operator new(too_large)), std::bad_alloc);
  EXPECT_EQ(calls, 3);
}

TEST(Linked, NewTriesAgainAfterItsHandler) {
  constexpr size_t kGiB = size_t{1} << 30;
  hak_test::RefuseMemoryUntilNewHandler();
  void *p = Opaque(::operator new(kGiB));
  EXPECT_EQ(std::get_new_handler(), nullptr) << "it was not called";
  EXPECT_EQ(Owner(p), "huge");
  ::operator delete(p);
}

TEST(Linked, ThreadsPassBlocksOn) {
  constexpr size_t kBytes = 200;
  std::vector<char *> blocks(1000);
  std::thread([&] {
    for (size_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = static_cast<char *>(malloc(kBytes));
      memset(blocks[i], static_cast<char>(i), kBytes);
    }
  }).join();
  malloc_trim(0);
  const size_t in_use = mallinfo2().uordblks;
  std::thread([&] {
    for (size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_EQ(Owner(blocks[i]), "tiny");
      EXPECT_EQ(std::string(blocks[i], kBytes), std::string(kBytes, static_cast<char>(i)));
      free(blocks[i]);
    }
  }).join();
  malloc_trim(0);
  EXPECT_LE(mallinfo2().uordblks, in_use - blocks.size() * kBytes);
}

}  // namespace

// A program that replaces only operator new(size_t) and operator delete(void *), as many do: every other form without
// an alignment must end in these two, or delete would get pointers that new did not make.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "preload/test_process.h"

namespace {

using hak_test::Opaque;

// Each block of the replaced new starts with a mark; what users get lies behind it.
constexpr size_t kMarkBytes = 16;
constexpr unsigned long kMark = 0x6d61726bUL;

unsigned news;
unsigned deletes;

size_t Unknown(size_t n) {
  asm volatile("" : "+r"(n));
  return n;
}

const size_t kTooLarge = Unknown(size_t{1} << 60);

}  // namespace

void *operator new(size_t size) {
  ++news;
  void *block = malloc(size + kMarkBytes);
  if (block == nullptr) throw std::bad_alloc();
  *static_cast<unsigned long *>(block) = kMark;
  return static_cast<char *>(block) + kMarkBytes;
}

// Leaving out the sized form is the point here.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wsized-deallocation"
#endif
void operator delete(void *p) noexcept {
  ++deletes;
  if (p == nullptr) return;
  char *block = static_cast<char *>(p) - kMarkBytes;
  if (*reinterpret_cast<unsigned long *>(block) != kMark) abort();
  free(block);
}

namespace {

template <typename F>
void ExpectOneNewAndOneDelete(F form) {
  unsigned news_before = news;
  unsigned deletes_before = deletes;
  form();
  EXPECT_EQ(news, news_before + 1);
  EXPECT_EQ(deletes, deletes_before + 1);
}

TEST(ReplacedNew, EveryFormGoesThroughTheProgramsOwn) {
  ExpectOneNewAndOneDelete([] { ::operator delete(Opaque(::operator new(50))); });
  ExpectOneNewAndOneDelete([] { ::operator delete (Opaque(::operator new(50)), size_t{50}); });
  ExpectOneNewAndOneDelete([] { ::operator delete(Opaque(::operator new(50, std::nothrow)), std::nothrow); });
  ExpectOneNewAndOneDelete([] { ::operator delete[](Opaque(::operator new[](50))); });
  ExpectOneNewAndOneDelete([] { ::operator delete[](Opaque(::operator new[](50)), size_t{50}); });
  ExpectOneNewAndOneDelete([] { ::operator delete[](Opaque(::operator new[](50, std::nothrow)), std::nothrow); });
}

TEST(ReplacedNew, NothrowFormsCatchWhatItThrows) {
  EXPECT_EQ(Opaque(::operator new(kTooLarge, std::nothrow)), nullptr);
  EXPECT_EQ(Opaque(::operator new[](kTooLarge, std::nothrow)), nullptr);
}

TEST(ReplacedNew, AlignedFormsStayHakmems) {
  constexpr auto kAlignment = std::align_val_t{64};
  unsigned news_before = news;
  unsigned deletes_before = deletes;
  void *p = Opaque(::operator new(100, kAlignment));
  void *q = Opaque(::operator new[](100, kAlignment, std::nothrow));
  bool both_hakmems = !hak_test::Owner(p).empty() && !hak_test::Owner(q).empty();
  ::operator delete(p, kAlignment);
  ::operator delete[](q, size_t{100}, kAlignment);
  EXPECT_EQ(news, news_before);
  EXPECT_EQ(deletes, deletes_before);
  EXPECT_TRUE(both_hakmems);
}

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

// Operator new and delete as a preloaded program sees them. preload_test and its like run it.
#include <gtest/gtest.h>
#include <stdint.h>

#include <memory_resource>
#include <new>
#include <string>
#include <vector>

#include "preload/test_preload.h"
#include "preload/test_process.h"

namespace {

using hak_test::Fill;
using hak_test::Holds;
using hak_test::IsAligned;
using hak_test::kGiB;
using hak_test::kKiB;
using hak_test::kMiB;
using hak_test::kPtrdiffMax;
using hak_test::kSizes;
using hak_test::Opaque;
using hak_test::Owner;
using hak_test::Unknown;

constexpr auto kAlignment = std::align_val_t{256};

// Every form of new with its deletes; each block is hakmem's.
TEST(New, EveryFormServesAndEveryFormOfDeleteTakesBack) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{64}, 5 * kKiB, 100 * kKiB, 4 * kMiB}) {
    auto next = [size](void *p, size_t alignment = 16) {
      p = Opaque(p);
      EXPECT_NE(Owner(p), "") << size;
      EXPECT_TRUE(IsAligned(p, alignment)) << size;
      Fill(p, size, 1);
      return p;
    };
    ::operator delete(next(::operator new(size)));
    ::operator delete(next(::operator new(size)), size);
    ::operator delete(next(::operator new(size, std::nothrow)), std::nothrow);
    ::operator delete[](next(::operator new[](size)));
    ::operator delete[](next(::operator new[](size)), size);
    ::operator delete[](next(::operator new[](size, std::nothrow)), std::nothrow);
    ::operator delete(next(::operator new(size, kAlignment), 256), kAlignment);
    ::operator delete(next(::operator new(size, kAlignment), 256), size, kAlignment);
    ::operator delete(next(::operator new(size, kAlignment, std::nothrow), 256), kAlignment, std::nothrow);
    ::operator delete[](next(::operator new[](size, kAlignment), 256), kAlignment);
    ::operator delete[](next(::operator new[](size, kAlignment), 256), size, kAlignment);
    ::operator delete[](next(::operator new[](size, kAlignment, std::nothrow), 256), kAlignment, std::nothrow);
  }
  ::operator delete(nullptr);
  ::operator delete[](nullptr);
}

TEST(Pmr, ItsResourcesTakeAlignedMemoryFromHakmem) {
  std::pmr::memory_resource *resource = std::pmr::new_delete_resource();
  EXPECT_EQ(std::pmr::get_default_resource(), resource);
  for (size_t size : kSizes) {
    for (size_t alignment : {size_t{1}, size_t{16}, size_t{64}, 4 * kKiB, 4 * kMiB}) {
      void *p = Opaque(resource->allocate(size, alignment));
      EXPECT_NE(Owner(p), "") << size;
      EXPECT_TRUE(IsAligned(p, alignment)) << size << " " << alignment;
      Fill(p, size, 7);
      EXPECT_TRUE(Holds(p, size, 7));
      resource->deallocate(p, size, alignment);
    }
  }
  std::pmr::synchronized_pool_resource pools;
  std::pmr::monotonic_buffer_resource buffer(&pools);
  std::pmr::vector<std::pmr::string> texts(&buffer);
  for (size_t i = 0; i < 1000; ++i) texts.emplace_back(i, 'x');
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(texts[i].size(), i);
    EXPECT_NE(Owner(texts[i].data()), "") << i;
  }
}

// Larger than any address space, below PTRDIFF_MAX.
const size_t kTooLarge = Unknown(size_t{1} << 60);

TEST(New, ThrowsBadAllocWhenMemoryHasRunOut) {
  std::set_new_handler(nullptr);
  EXPECT_THROW(Opaque(::operator new(kTooLarge)), std::bad_alloc);
  EXPECT_THROW(Opaque(::operator new[](kTooLarge)), std::bad_alloc);
  EXPECT_THROW(Opaque(::operator new(kTooLarge, kAlignment)), std::bad_alloc);
  EXPECT_THROW(Opaque(::operator new[](kTooLarge, kAlignment)), std::bad_alloc);
  std::vector<char> bytes;
  EXPECT_THROW(bytes.reserve(kTooLarge); Opaque(&bytes), std::bad_alloc);
}

TEST(New, RefusesSizesAtAndAbovePtrdiffMax) {
  std::set_new_handler(nullptr);
  for (size_t size : {kPtrdiffMax - 1, kPtrdiffMax, kPtrdiffMax + 1, SIZE_MAX - 4096, SIZE_MAX}) {
    EXPECT_THROW(Opaque(::operator new(size)), std::bad_alloc) << size;
    EXPECT_EQ(Opaque(::operator new(size, std::nothrow)), nullptr) << size;
    for (size_t alignment : {size_t{64}, 4 * kKiB, kGiB, size_t{1} << 63}) {
      EXPECT_THROW(Opaque(::operator new (size, std::align_val_t{alignment})), std::bad_alloc) << size;
      EXPECT_THROW(Opaque(::operator new[](size, std::align_val_t{alignment})), std::bad_alloc) << size;
      EXPECT_EQ(Opaque(::operator new (size, std::align_val_t{alignment}, std::nothrow)), nullptr) << size;
      EXPECT_EQ(Opaque(::operator new[](size, std::align_val_t{alignment}, std::nothrow)), nullptr) << size;
    }
  }
}

TEST(New, NothrowFormsReturnNullWhenMemoryHasRunOut) {
  std::set_new_handler(nullptr);
  EXPECT_EQ(Opaque(::operator new(kTooLarge, std::nothrow)), nullptr);
  EXPECT_EQ(Opaque(::operator new[](kTooLarge, std::nothrow)), nullptr);
  EXPECT_EQ(Opaque(::operator new(kTooLarge, kAlignment, std::nothrow)), nullptr);
  EXPECT_EQ(Opaque(::operator new[](kTooLarge, kAlignment, std::nothrow)), nullptr);
}

unsigned handler_calls;

// Gives up at the third call, as the standard lets a handler do.
void ThreeTimes() {
  if (++handler_calls == 3) std::set_new_handler(nullptr);
}

void Throwing() {
  ++handler_calls;
  throw std::bad_alloc();
}

template <typename F>
unsigned HandlerCalls(std::new_handler handler, F allocate) {
  handler_calls = 0;
  std::set_new_handler(handler);
  allocate();
  std::set_new_handler(nullptr);
  return handler_calls;
}

TEST(New, CallsTheNewHandlerUntilItGivesUp) {
  EXPECT_EQ(HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new(kTooLarge)), std::bad_alloc); }), 3u);
  EXPECT_EQ(HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new[](kTooLarge)), std::bad_alloc); }), 3u);
  EXPECT_EQ(
      HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new(kTooLarge, kAlignment)), std::bad_alloc); }),
      3u);
  EXPECT_EQ(
      HandlerCalls(ThreeTimes, [] { EXPECT_THROW(Opaque(::operator new[](kTooLarge, kAlignment)), std::bad_alloc); }),
      3u);
  EXPECT_EQ(HandlerCalls(ThreeTimes, [] { EXPECT_EQ(Opaque(::operator new(kTooLarge, std::nothrow)), nullptr); }), 3u);
}

TEST(New, TriesAgainAfterTheNewHandler) {
  hak_test::RefuseMemoryUntilNewHandler();
  void *p = Opaque(::operator new(kGiB));
  EXPECT_EQ(std::get_new_handler(), nullptr) << "it was not called";
  EXPECT_EQ(Owner(p), "huge");
  ::operator delete(p);
}

TEST(New, WhatAHandlerThrowsPassesThroughTheThrowingForms) {
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_THROW(Opaque(::operator new(kTooLarge)), std::bad_alloc); }), 1u);
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_THROW(Opaque(::operator new[](kTooLarge)), std::bad_alloc); }), 1u);
}

TEST(New, WhatAHandlerThrowsMakesTheNothrowFormsReturnNull) {
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new(kTooLarge, std::nothrow)), nullptr); }), 1u);
  EXPECT_EQ(HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new[](kTooLarge, std::nothrow)), nullptr); }), 1u);
  EXPECT_EQ(
      HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new(kTooLarge, kAlignment, std::nothrow)), nullptr); }),
      1u);
  EXPECT_EQ(
      HandlerCalls(Throwing, [] { EXPECT_EQ(Opaque(::operator new[](kTooLarge, kAlignment, std::nothrow)), nullptr); }),
      1u);
}

}  // namespace

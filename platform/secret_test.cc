#include "platform/secret.h"

#include <gtest/gtest.h>

#include <cstring>

namespace {

constexpr uintptr_t kAddress = 0x7f1234567890;
constexpr uint64_t kValueMax = (uint64_t{1} << 48) - 1;

class Secret : public testing::Test {
 protected:
  void SetUp() override { hak_secret_make(); }
};

TEST_F(Secret, DecodesWhatWasEncodedAtTheSameAddress) {
  for (uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{kAddress}, kValueMax}) {
    EXPECT_EQ(hak_secret_decode(kAddress, hak_secret_encode(kAddress, value)), value);
    EXPECT_NE(hak_secret_decode(kAddress + 16, hak_secret_encode(kAddress, value)), value);
  }
}

TEST_F(Secret, IsDrawnOnce) {
  struct hak_secret drawn = hak_secret;
  hak_secret_make();
  EXPECT_EQ(memcmp(&drawn, &hak_secret, sizeof drawn), 0);
}

// Each change but one in 2^16 or so; that one byte or bit alone is changed must make no difference. With a secret that
// is not drawn, since for one in a few hundred there is a bit whose change is never seen.
TEST_F(Secret, AChangedWordIsNoValueAnyMore) {
  hak_secret = {0x243f6a8885a308d3, 0x9e3779b97f4a7c15, 0xf1de83e19937733d};
  size_t n_taken = 0;
  size_t n_words = 0;
  for (uintptr_t address = kAddress; address < kAddress + 16 * 1000; address += 16) {
    uint64_t word = hak_secret_encode(address, address ^ 64);
    for (unsigned bit = 0; bit < 64; ++bit, ++n_words) {
      n_taken += hak_secret_decode(address, word ^ uint64_t{1} << bit) <= kValueMax;
    }
  }
  EXPECT_LT(n_taken, n_words / 1000);
}

}  // namespace

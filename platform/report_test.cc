#include "platform/report.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <string>

namespace {

template <typename... Arguments>
std::string Report(const char *format, Arguments... arguments) {
  ::testing::internal::CaptureStderr();
  hak_report(format, arguments...);
  return ::testing::internal::GetCapturedStderr();
}

TEST(Report, KnowsItsFormats) {
  EXPECT_EQ(Report("%s, %p, %zu, %u, %%", "text", reinterpret_cast<void *>(0xabc0), SIZE_MAX, 7u),
            "[HAKMEM] text, 0xabc0, 18446744073709551615, 7, %\n");
  EXPECT_EQ(Report("%zu %u %p", size_t{0}, 0u, static_cast<void *>(nullptr)), "[HAKMEM] 0 0 0x0\n");
}

TEST(Report, IsOneLineWhateverTheArguments) {
  EXPECT_EQ(Report("%s", "a\nb\tc\x1b"), "[HAKMEM] a?b?c?\n");
  EXPECT_EQ(Report("%s", "\xc3\xa4"), "[HAKMEM] \xc3\xa4\n") << "what is not ASCII stays";
}

TEST(Report, CutsWhatIsLongerThan255Bytes) {
  std::string line = Report("%s", std::string(1000, 'x').c_str());
  EXPECT_EQ(line, "[HAKMEM] " + std::string(246, 'x') + "\n");
}

TEST(Report, KeepsErrno) {
  errno = EDOM;
  (void)Report("%u", 1u);
  EXPECT_EQ(errno, EDOM);
}

TEST(ReportDeathTest, ABrokenInvariantIsNamedWithItsPlace) {
  EXPECT_DEATH(hak_fatal_invariant("a == b", "tier.c", 42), "FATAL: invariant broken: a == b at tier.c:42");
}

TEST(ReportDeathTest, MisuseIsNamedWithFunctionAndPointer) {
  EXPECT_DEATH(hak_fatal_misuse("free", reinterpret_cast<void *>(0x10), "double free"),
               "FATAL: free\\(0x10\\): double free");
}

}  // namespace

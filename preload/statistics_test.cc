// mallinfo, mallinfo2, malloc_stats and malloc_info: what preload/README.md says of their numbers.
#include <errno.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::Lines;
using hak_test::Opaque;
using hak_test::Outcome;

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr size_t kGiB = 1024 * kMiB;

// A file without a name.
FILE *TemporaryFile() {
  FILE *file = tmpfile();
  if (file == nullptr) abort();
  return file;
}

std::string ContentOf(FILE *file) {
  std::string content;
  char buffer[4096];
  rewind(file);
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0;) content.append(buffer, n);
  return content;
}

TEST(Mallinfo2, UsedAndFreeAddUpAndTheFieldsOfGlibcsBinsAreZero) {
  struct mallinfo2 info = mallinfo2();
  EXPECT_GT(info.arena, 0u);
  EXPECT_EQ(info.arena, info.uordblks + info.fordblks);
  EXPECT_EQ(info.keepcost, info.fordblks);
  EXPECT_EQ(info.ordblks, 0u);
  EXPECT_EQ(info.smblks, 0u);
  EXPECT_EQ(info.usmblks, 0u);
  EXPECT_EQ(info.fsmblks, 0u);
}

TEST(Mallinfo2, UordblksHoldsEveryBlockBelow2MiBAndFallsWhenTheyAreFreed) {
  for (size_t size : {size_t{64}, 20 * kKiB, 500 * kKiB}) {
    malloc_trim(0);
    const size_t before = mallinfo2().uordblks;
    const size_t total = 64 * kMiB;
    std::vector<void *> blocks(total / size);
    for (void *&p : blocks) p = malloc(size);
    EXPECT_GE(mallinfo2().uordblks, before + total - 4 * kMiB) << size;
    EXPECT_LE(mallinfo2().uordblks, before + total * 5 / 4) << size;
    for (void *p : blocks) free(p);
    malloc_trim(0);
    EXPECT_LE(mallinfo2().uordblks, before + 4 * kMiB) << size;
  }
}

TEST(Mallinfo2, HblksAndHblkhdAreTheBlocksFrom2MiBOn) {
  const struct mallinfo2 before = mallinfo2();
  void *p = Opaque(malloc(4 * kMiB));
  void *q = Opaque(malloc(6 * kMiB));
  EXPECT_EQ(mallinfo2().hblks, before.hblks + 2);
  EXPECT_EQ(mallinfo2().hblkhd, before.hblkhd + 10 * kMiB);
  free(p);
  free(q);
  EXPECT_EQ(mallinfo2().hblks, before.hblks);
  EXPECT_EQ(mallinfo2().hblkhd, before.hblkhd);
}

TEST(Mallinfo2, KeepcostIsLeftByTrimOnlyInSuperslabsThatAreInUse) {
  malloc_trim(0);
  const size_t in_use = mallinfo2().keepcost;
  free(Opaque(malloc(3 * kMiB)));  // less than is kept of unused memory
  EXPECT_GE(mallinfo2().keepcost, in_use + 3 * kMiB);
  malloc_trim(0);
  EXPECT_LE(mallinfo2().keepcost, in_use);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

TEST(Mallinfo, IsMallinfo2AndEndsAtIntMax) {
  void *p = Opaque(malloc(4 * kMiB));
  struct mallinfo2 wide = mallinfo2();
  struct mallinfo info = mallinfo();
  EXPECT_EQ(static_cast<size_t>(info.arena), wide.arena);
  EXPECT_EQ(static_cast<size_t>(info.uordblks), wide.uordblks);
  EXPECT_EQ(static_cast<size_t>(info.fordblks), wide.fordblks);
  EXPECT_EQ(static_cast<size_t>(info.keepcost), wide.keepcost);
  EXPECT_EQ(static_cast<size_t>(info.hblks), wide.hblks);
  EXPECT_EQ(static_cast<size_t>(info.hblkhd), wide.hblkhd);
  EXPECT_EQ(info.ordblks, 0);
  EXPECT_EQ(info.smblks, 0);
  EXPECT_EQ(info.usmblks, 0);
  EXPECT_EQ(info.fsmblks, 0);
  free(p);
  p = Opaque(malloc(3 * kGiB));
  ASSERT_NE(p, nullptr);
  EXPECT_EQ(mallinfo().hblkhd, INT_MAX);
  free(p);
}

TEST(Statistics, KeepErrno) {
  errno = 77;
  mallinfo();
  mallinfo2();
  EXPECT_EQ(errno, 77);
}

#pragma GCC diagnostic pop

TEST(MallocStats, PrintsThreeLinesOnStderrAndKeepsErrno) {
  FILE *file = TemporaryFile();
  fflush(stderr);
  const int saved = dup(STDERR_FILENO);
  dup2(fileno(file), STDERR_FILENO);
  errno = 77;
  malloc_stats();
  const int after = errno;
  dup2(saved, STDERR_FILENO);
  close(saved);
  EXPECT_EQ(after, 77);
  const std::string text = ContentOf(file);
  fclose(file);
  const std::vector<std::string> lines = Lines(text);
  ASSERT_EQ(lines.size(), 3u) << text;
  EXPECT_TRUE(
      std::regex_match(lines[0], std::regex("\\[HAKMEM\\] SuperSlabs: [0-9]+ bytes mapped, [0-9]+ bytes in use")))
      << text;
  EXPECT_TRUE(
      std::regex_match(lines[1], std::regex("\\[HAKMEM\\] ACE: [0-9]+ bytes of SuperSlabs, [0-9]+ bytes of them free")))
      << text;
  EXPECT_TRUE(
      std::regex_match(lines[2], std::regex("\\[HAKMEM\\] Huge: [0-9]+ blocks of [0-9]+ bytes, [0-9]+ bytes cached")))
      << text;
}

// What Python's XML parser finds: "element attribute" or "element type attribute", and the value.
std::map<std::string, std::string> Parse(const std::string &xml) {
  static constexpr char kScript[] =
      "import sys, xml.etree.ElementTree as tree\n"
      "root = tree.fromstring(sys.argv[1])\n"
      "assert root.tag == 'malloc', root.tag\n"
      "for node in [root, *root]:\n"
      "    name = ' '.join([node.tag, *filter(None, [node.get('type')])])\n"
      "    for key, value in node.items():\n"
      "        if key != 'type': print(f'{name} {key}={value}')\n";
  Outcome outcome = hak_test::Run({"/usr/bin/python3", "-c", kScript, xml});
  EXPECT_EQ(outcome.exit_status, 0) << outcome.err << xml;
  std::map<std::string, std::string> attributes;
  for (const std::string &line : Lines(outcome.out)) {
    const size_t equals = line.find('=');
    EXPECT_TRUE(attributes.emplace(line.substr(0, equals), line.substr(equals + 1)).second) << line;
  }
  return attributes;
}

TEST(MallocInfo, WritesXmlThatAParserReadsWithTheNumbersOfMallinfo2) {
  void *p = Opaque(malloc(4 * kMiB));
  void *q = Opaque(malloc(100 * kKiB));
  FILE *file = TemporaryFile();
  fputs(" ", file);  // the stream has its buffer
  const struct mallinfo2 info = mallinfo2();
  ASSERT_EQ(malloc_info(0, file), 0);
  auto attributes = Parse(ContentOf(file).substr(1));
  fclose(file);
  free(p);
  free(q);
  auto number = [&](const std::string &name) -> size_t {
    EXPECT_EQ(attributes.count(name), 1u) << name;
    return strtoull(attributes[name].c_str(), nullptr, 10);
  };
  EXPECT_EQ(attributes["malloc version"], "hakmem-1");
  EXPECT_EQ(number("superslabs mapped") + number("huge cached"), info.arena);
  EXPECT_EQ(number("superslabs used"), info.uordblks);
  EXPECT_GE(number("ace mapped"), number("ace free"));
  EXPECT_EQ(number("huge count"), info.hblks);
  EXPECT_EQ(number("huge size"), info.hblkhd);
  EXPECT_EQ(number("total mmap count"), info.hblks);
  EXPECT_EQ(number("total mmap size"), info.hblkhd);
  EXPECT_EQ(number("system current size"), info.arena + info.hblkhd);
}

TEST(MallocInfo, KeepsErrnoAlsoWhenTheStreamDoesNot) {
  cookie_io_functions_t functions = {};
  functions.write = [](void *, const char *, size_t length) {
    errno = EAGAIN;
    return static_cast<ssize_t>(length);
  };
  FILE *stream = fopencookie(nullptr, "w", functions);
  ASSERT_NE(stream, nullptr);
  setvbuf(stream, nullptr, _IONBF, 0);
  errno = 77;
  EXPECT_EQ(malloc_info(0, stream), 0);
  EXPECT_EQ(errno, 77);
  fclose(stream);
}

TEST(MallocInfo, RefusesOptionsWithEinvalAndWritesNothing) {
  FILE *file = TemporaryFile();
  errno = 0;
  EXPECT_EQ(malloc_info(1, file), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(ContentOf(file), "");
  fclose(file);
}

TEST(MallocInfo, SaysThatAStreamCannotBeWritten) {
  FILE *file = fopen("/dev/null", "r");
  ASSERT_NE(file, nullptr);
  errno = 0;
  EXPECT_EQ(malloc_info(0, file), -1);
  EXPECT_EQ(errno, EBADF);
  fclose(file);
}

}  // namespace

int main(int argc, char **argv) {
  hak_test::RunOnHakmem(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

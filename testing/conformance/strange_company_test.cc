// "Runs under callgrind, cachegrind, strace, gdb, ulimit -v, mlockall (where madvise fails), seccomp filters that
// refuse unusual system calls, without /proc, with stdin, stdout and stderr closed, as a set-user-ID program (the
// variables are then ignored)."
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "preload/test_process.h"

namespace {

using hak_test::DataFile;
using hak_test::Outcome;

// What a program of testdata/ ends with when this system does not permit what it is about.
constexpr int kCannot = 77;

std::string Program(const std::string &name) { return DataFile("testing/conformance/" + name); }

// Runs everyday under `company`, a command that takes another one as its last arguments.
Outcome Everyday(std::vector<std::string> company, const std::vector<std::string> &arguments = {}) {
  company.push_back(Program("everyday"));
  company.insert(company.end(), arguments.begin(), arguments.end());
  return hak_test::Run(company);
}

void ExpectOk(const Outcome &outcome) {
  EXPECT_EQ(outcome.out, "ok\n") << outcome.err;
  EXPECT_EQ(outcome.exit_status, 0) << "signal " << outcome.signal;
}

// A shell command that runs its arguments in what the command sets up.
std::vector<std::string> InShell(const std::string &command) { return {"/bin/sh", "-c", command, "sh"}; }

#define SKIP_UNLESS_INSTALLED(tool) \
  if (access(tool, X_OK) != 0) GTEST_SKIP() << tool << " is not installed"

TEST(StrangeCompany, NoneAtAll) { ExpectOk(Everyday({})); }

TEST(StrangeCompany, Callgrind) {
  SKIP_UNLESS_INSTALLED("/usr/bin/valgrind");
  ExpectOk(Everyday({"/usr/bin/valgrind", "--quiet", "--tool=callgrind", "--callgrind-out-file=/dev/null"}));
}

TEST(StrangeCompany, Cachegrind) {
  SKIP_UNLESS_INSTALLED("/usr/bin/valgrind");
  ExpectOk(Everyday({"/usr/bin/valgrind", "--quiet", "--tool=cachegrind", "--cachegrind-out-file=/dev/null"}));
}

TEST(StrangeCompany, Strace) {
  SKIP_UNLESS_INSTALLED("/usr/bin/strace");
  ExpectOk(Everyday({"/usr/bin/strace", "-f", "-o", "/dev/null"}));
}

TEST(StrangeCompany, GdbWhichCallsMallocAndFreeInTheProgram) {
  SKIP_UNLESS_INSTALLED("/usr/bin/gdb");
  Outcome outcome =
      hak_test::Run({"/usr/bin/gdb", "--batch", "--nx", "-iex", "set debuginfod enabled off", "-ex", "break main",
                     "-ex", "run", "-ex", "set $block = ((void *(*)(unsigned long))malloc)(100)", "-ex",
                     "print ((const char *(*)(const void *))hak_owner)($block)", "-ex",
                     "call ((void (*)(void *))free)($block)", "-ex", "continue", "--args", Program("everyday")});
  EXPECT_NE(outcome.out.find("\"tiny\""), std::string::npos) << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("\nok\n"), std::string::npos) << outcome.out << outcome.err;
  EXPECT_NE(outcome.out.find("exited normally"), std::string::npos) << outcome.out;
}

TEST(StrangeCompany, AnAddressSpaceOfAQuarterOfAGiB) { ExpectOk(Everyday(InShell("ulimit -v 262144 && exec \"$@\""))); }

TEST(StrangeCompany, MlockallWhereMadviseFails) {
  Outcome outcome = Everyday({}, {"mlockall"});
  if (outcome.exit_status == kCannot) GTEST_SKIP() << "this user may not lock memory";
  ExpectOk(outcome);
}

TEST(StrangeCompany, SeccompFiltersThatRefuseUnusualSystemCalls) {
  for (int error : {EPERM, ENOSYS, EACCES}) {
    Outcome outcome = Everyday({Program("refuse"), std::to_string(error)});
    if (outcome.exit_status == kCannot) GTEST_SKIP() << "seccomp filters are not permitted";
    ExpectOk(outcome);
  }
}

TEST(StrangeCompany, ASandboxThatKillsWhoOpensAFile) {
  Outcome outcome = hak_test::Run({Program("sandboxed")});
  if (outcome.exit_status == kCannot) GTEST_SKIP() << "seccomp filters are not permitted";
  ExpectOk(outcome);
}

TEST(StrangeCompany, NoProc) {
  Outcome outcome = Everyday({Program("without_proc")});
  if (outcome.exit_status == kCannot) GTEST_SKIP() << "mount namespaces are not permitted";
  ExpectOk(outcome);
}

TEST(StrangeCompany, StdinStdoutAndStderrAreClosedAndNobodyOpensAFileInTheirPlace) {
  Outcome outcome = Everyday(InShell("exec \"$@\" <&- >&- 2>&-"), {"descriptors"});
  EXPECT_EQ(outcome.exit_status, 0) << "signal " << outcome.signal;
}

TEST(StrangeCompany, MisuseStopsAProgramAlsoWhenStderrIsClosed) {
  std::vector<std::string> command = InShell("exec \"$@\" 2>&-");
  command.push_back(DataFile("testing/misuse/double_free_tiny"));
  EXPECT_EQ(hak_test::Run(command).signal, SIGABRT);
}

// A copy of set_user_id in a directory that everybody may enter, with this owner and mode.
class SetUserId : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(mkdtemp(directory_), nullptr);
    ASSERT_EQ(chmod(directory_, 0755), 0);
    copy_ = std::string(directory_) + "/set_user_id";
    ASSERT_EQ(hak_test::Run({"/bin/cp", Program("set_user_id"), copy_}).exit_status, 0);
  }

  void TearDown() override {
    unlink(copy_.c_str());
    rmdir(directory_);
  }

  Outcome RunAsNobody() {
    return hak_test::Run({"/usr/bin/env", "--unset=LD_PRELOAD", "/usr/bin/setpriv", "--reuid=65534", "--regid=65534",
                          "--clear-groups", copy_},
                         {"HAKMEM_TINY_USE_SUPERSLAB=0"});
  }

  char directory_[32] = P_tmpdir "/hakmem-test-XXXXXX";  // which other users can reach, unlike the directory of tests
  std::string copy_;
};

TEST_F(SetUserId, TheVariablesAreIgnored) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can make a set-user-ID program of another user";
  ASSERT_EQ(chmod(copy_.c_str(), 0755), 0);
  Outcome plain = RunAsNobody();
  if (plain.err.find("setpriv: ") != std::string::npos) GTEST_SKIP() << plain.err;
  EXPECT_EQ(plain.out, "plain mid\n");
  ASSERT_EQ(chmod(copy_.c_str(), 04755), 0);
  Outcome secure = RunAsNobody();
  if (secure.out == plain.out) GTEST_SKIP() << "set-user-ID bits have no effect in /tmp";
  EXPECT_EQ(secure.out, "secure tiny\n");
}

}  // namespace

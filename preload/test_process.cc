#include "preload/test_process.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace hak_test {
namespace {

// HAK_TEST_LIBRARY, which a test's BUILD rule sets, names another one.
std::string Library() {
  const char *chosen = getenv("HAK_TEST_LIBRARY");
  return chosen == nullptr ? "preload/libhakmem.so" : chosen;
}

[[noreturn]] void Die(const std::string &what) {
  std::fprintf(stderr, "test_process: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

using OwnerFunction = const char *(*)(const void *);

OwnerFunction PreloadedOwner() { return reinterpret_cast<OwnerFunction>(dlsym(RTLD_DEFAULT, "hak_owner")); }

}  // namespace

std::string DataFile(const std::string &workspace_path) {
  char path[PATH_MAX];
  if (realpath(workspace_path.c_str(), path) == nullptr) Die(workspace_path + " (run this through bazel)");
  return path;
}

void RefuseMemoryUntilNewHandler() {
  static rlimit unlimited;
  if (getrlimit(RLIMIT_AS, &unlimited) != 0) Die("getrlimit");
  const rlimit nothing = {0, unlimited.rlim_max};
  std::set_new_handler([] {
    std::set_new_handler(nullptr);
    setrlimit(RLIMIT_AS, &unlimited);
  });
  if (setrlimit(RLIMIT_AS, &nothing) != 0) Die("setrlimit");
}

bool IsHardened() { return Library().find("hardened") != std::string::npos; }

void RunOnHakmem(char **argv) {
  constexpr char kMark[] = "HAK_TEST_PRELOADED";
  if (getenv(kMark) == nullptr) {
    setenv(kMark, "1", 1);
    setenv("LD_PRELOAD", DataFile(Library()).c_str(), 1);
    execv("/proc/self/exe", argv);
    Die("execv");
  }
  // Child processes of the test choose for themselves.
  unsetenv(kMark);
  unsetenv("LD_PRELOAD");
  void *p = Opaque(malloc(100));
  if (Owner(p).empty()) Die("malloc is not hakmem's although the library was preloaded");
  free(p);
}

std::string Owner(const void *p) {
  static const OwnerFunction owner = PreloadedOwner();
  const char *tier = owner == nullptr ? nullptr : owner(p);
  return tier == nullptr ? "" : tier;
}

Outcome Run(const std::vector<std::string> &argv, const std::vector<std::string> &environment) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) Die("pipe2");
  std::vector<char *> arguments;
  for (const std::string &argument : argv) arguments.push_back(const_cast<char *>(argument.c_str()));
  arguments.push_back(nullptr);

  std::vector<std::string> variables = {"LD_PRELOAD=" + DataFile(Library())};
  for (char **variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "HAKMEM_", 7) != 0 && std::strncmp(*variable, "LD_PRELOAD=", 11) != 0) {
      variables.push_back(*variable);
    }
  }
  variables.insert(variables.end(), environment.begin(), environment.end());
  std::vector<char *> envp;
  for (std::string &variable : variables) envp.push_back(&variable[0]);
  envp.push_back(nullptr);

  std::fflush(nullptr);
  pid_t child = fork();
  if (child < 0) Die("fork");
  if (child == 0) {
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    execve(arguments[0], arguments.data(), envp.data());
    _exit(127);
  }
  close(out[1]);
  close(err[1]);

  Outcome outcome;
  struct pollfd streams[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  std::string *texts[2] = {&outcome.out, &outcome.err};
  for (int open = 2; open > 0;) {
    if (poll(streams, 2, -1) < 0) {
      if (errno == EINTR) continue;
      Die("poll");
    }
    for (int i = 0; i < 2; i++) {
      if (streams[i].fd < 0 || streams[i].revents == 0) continue;
      char buffer[4096];
      ssize_t length = read(streams[i].fd, buffer, sizeof buffer);
      if (length > 0) {
        texts[i]->append(buffer, static_cast<size_t>(length));
      } else {
        close(streams[i].fd);
        streams[i].fd = -1;
        --open;
      }
    }
  }
  int status;
  if (waitpid(child, &status, 0) != child) Die("waitpid");
  if (WIFEXITED(status)) outcome.exit_status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  return outcome;
}

std::vector<std::string> Lines(const std::string &text) {
  std::vector<std::string> lines;
  for (size_t start = 0; start < text.size();) {
    size_t end = text.find('\n', start);
    if (end == std::string::npos) end = text.size();
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

}  // namespace hak_test

#include "testing/oracle/failure.h"

#include <cstdio>
#include <cstdlib>

namespace hak_oracle {
namespace {

std::string &RepeatCommand() {
  static std::string command;
  return command;
}

}  // namespace

void AnnounceProgram(const std::string &repeat_command) {
  RepeatCommand() = repeat_command;
  std::fprintf(stderr, "[oracle] next: %s\n", repeat_command.c_str());
}

void Fail(const std::string &what) {
  std::fprintf(stderr, "[oracle] FAILED: %s\n", what.c_str());
  if (!RepeatCommand().empty()) std::fprintf(stderr, "[oracle] to repeat: %s\n", RepeatCommand().c_str());
  std::abort();
}

}  // namespace hak_oracle

// How the oracle ends: it says what it found, how to see it again, and aborts, since a heap that is wrong once cannot
// be trusted with reporting more.
#ifndef HAKMEM_TESTING_ORACLE_FAILURE_H_
#define HAKMEM_TESTING_ORACLE_FAILURE_H_

#include <string>

namespace hak_oracle {

// Announces on stderr, before a program starts, the command that repeats it; so it is the last word in the log also
// when the allocator itself, a sanitizer or a time limit ends the process. Not while programs run.
void AnnounceProgram(const std::string &repeat_command);

// Says what is wrong, and the announced command again if there is one, and aborts. Any thread.
[[noreturn]] void Fail(const std::string &what);

}  // namespace hak_oracle

#endif  // HAKMEM_TESTING_ORACLE_FAILURE_H_

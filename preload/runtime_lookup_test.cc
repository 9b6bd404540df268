// operator new in processes whose C++ runtime is out of reach of weak references, or that have none.
#include <gtest/gtest.h>
#include <signal.h>

#include "preload/test_process.h"

namespace {

TEST(RuntimeLookup, BadAllocReachesAPluginThatBroughtItsRuntimeWithRtldLocal) {
  hak_test::Outcome outcome = hak_test::Run(
      {hak_test::DataFile("preload/plugin_host"), hak_test::DataFile("preload/libplugin.so")}, {"HAKMEM_VERBOSE=0"});
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.out, "new: bad_alloc\nnothrow new: NULL\n");
  EXPECT_EQ(outcome.exit_status, 0);
}

TEST(RuntimeLookup, WithoutARuntimeTheProgramStopsWithAMessage) {
  hak_test::Outcome outcome = hak_test::Run({hak_test::DataFile("preload/c_new")}, {"HAKMEM_VERBOSE=0"});
  EXPECT_EQ(outcome.signal, SIGABRT);
  EXPECT_EQ(outcome.err,
            "[HAKMEM] FATAL: operator new(1152921504606846976): out of memory, and there is no C++ runtime to throw "
            "std::bad_alloc\n");
}

}  // namespace

#include "cli/interrupt.hpp"

#include <gtest/gtest.h>

#include <csignal>

namespace halftone {
namespace {

TEST(Interrupt, TheFirstSignalOnlySetsAFlag) {
  for (const int signal : {SIGINT, SIGTERM}) {
    std::signal(signal, SIG_DFL);  // whoever started the tests in the background may have it ignored
    const cli::Interrupt interrupt;
    EXPECT_FALSE(interrupt.raised());
    std::raise(signal);
    EXPECT_TRUE(interrupt.raised());
  }
}

TEST(Interrupt, AnIgnoredSignalStaysIgnored) {
  std::signal(SIGINT, SIG_IGN);
  {
    const cli::Interrupt interrupt;
    std::raise(SIGINT);
    EXPECT_FALSE(interrupt.raised());
  }
  EXPECT_EQ(std::signal(SIGINT, SIG_DFL), SIG_IGN);
}

}  // namespace
}  // namespace halftone

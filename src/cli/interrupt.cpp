#include "cli/interrupt.hpp"

#include <csignal>

namespace halftone::cli {
namespace {

volatile std::sig_atomic_t caught = 0;

void handle(int) { caught = 1; }

void install(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

Interrupt::Interrupt() {
  caught = 0;
  install(handle);
}

Interrupt::~Interrupt() { install(SIG_DFL); }

bool Interrupt::raised() const { return caught != 0; }

}  // namespace halftone::cli

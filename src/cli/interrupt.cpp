#include "cli/interrupt.hpp"

#include <csignal>
#include <initializer_list>

namespace halftone::cli {
namespace {

volatile std::sig_atomic_t caught = 0;

void handle(int) { caught = 1; }

void install(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

}  // namespace

Interrupt::Interrupt() {
  caught = 0;
  install(handle);
}

Interrupt::~Interrupt() { install(SIG_DFL); }

bool Interrupt::raised() const { return caught != 0; }

}  // namespace halftone::cli

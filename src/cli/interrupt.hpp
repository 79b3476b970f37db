#pragma once

namespace halftone::cli {

constexpr int interrupted_status = 130;

/// While it lives, the first SIGINT or SIGTERM only sets a flag; a second one ends the program. A signal that the
/// program was started to ignore stays ignored.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool raised() const;
};

}  // namespace halftone::cli

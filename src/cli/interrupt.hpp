#pragma once

namespace halftone::cli {

/// While it lives, the first SIGINT or SIGTERM only sets a flag; a second one ends the program.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool raised() const;
};

}  // namespace halftone::cli

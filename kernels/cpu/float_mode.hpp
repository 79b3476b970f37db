#pragma once
#include <cfenv>

namespace halftone::cpu {

/// While it lives, this thread rounds to nearest and keeps subnormal numbers, whatever the program around has set.
class FloatMode {
 public:
  FloatMode() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatMode() { std::fesetenv(&before_); }
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
  std::fenv_t before_;
};

}  // namespace halftone::cpu

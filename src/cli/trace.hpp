#pragma once
#include <filesystem>
#include <string>

#include "halftone/train/trainer.hpp"

namespace halftone::cli {

/// A CSV file with one row a step. Without a file it does nothing.
class Trace {
 public:
  explicit Trace(std::filesystem::path file);
  /// Goes on from the file's rows of the first `steps` steps, where it is a trace.
  void resume(std::int64_t steps);
  void add(const StepReport& step);
  void write() const;  ///< all rows so far

 private:
  std::filesystem::path file_;
  std::string text_;
};

}  // namespace halftone::cli

#pragma once
#include "halftone/train/checkpoint.hpp"

namespace halftone::cli {

/// Ends a run whose test accuracy gets no better for some epochs.
class Patience {
 public:
  explicit Patience(std::int64_t epochs) : epochs_(epochs) {}  ///< 0: without end
  void take(double accuracy, std::int64_t epochs);             ///< of a test, so many epochs after the one before
  bool is_over() const { return epochs_ > 0 && since_ >= epochs_; }

  void note(Identity& identity) const;
  void resume(const Metadata& state);

 private:
  std::int64_t epochs_, since_ = 0;
  double best_ = -1;
};

}  // namespace halftone::cli

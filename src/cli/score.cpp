#include "cli/score.hpp"

#include <cmath>

namespace halftone::cli {

Score score(Trainer& trainer, const Loader& loader, Value accuracy, bool average) {
  const double share =
      trainer.evaluate(loader, accuracy, average);  // of means in f32, so near the share of a whole number
  return {std::llround(share * static_cast<double>(loader.size())), loader.size()};
}

}  // namespace halftone::cli

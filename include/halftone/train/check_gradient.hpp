#pragma once
#include <iosfwd>
#include <string>
#include <vector>

#include "halftone/graph/graph.hpp"

namespace halftone {

struct GradientCheckOptions {
  std::vector<Value> also = {};  ///< f32 inputs of the graph whose gradients are checked like the parameters'
  int directions = 4;       ///< tried per tensor: signs drawn at random, leaning towards the gradient every other time
  double tolerance = 5e-3;  ///< greatest relative error that passes
  Device device = cpu_device();
  std::uint64_t seed = 1;  ///< of the parameters' values, of dropout and of the directions
};

struct GradientReport {
  /// Two mean derivatives of the loss along one direction: of those tried, the one where they differ most.
  struct Tensor {
    std::string name;
    double analytic = 0, numeric = 0;
    double noise = 0;  ///< what the loss's rounding, or an integral not settled, adds to their difference: no error
    double relative_error =
        0;  ///< to the larger one, or to what a random direction is expected to give if that is more
  };
  std::vector<Tensor> tensors;
  double tolerance = 0;
  bool passed() const;
};

/// One line a tensor.
std::ostream& operator<<(std::ostream& out, const GradientReport& report);

/// Compares the gradient of `loss`, as training computes it in f32, with differences of the loss, for every trainable
/// parameter and all of `options.also`. A loss with kinks (relu, max pool) is still the integral of its derivative:
/// over a stretch along a direction, long enough for the loss's rounding (2^-13 to 2^-4 of the tensor's root mean
/// square to either side), the loss's difference is set against the integral of the gradients met there, so a kink,
/// which changes the derivative on the way, is no error. The integral is Simpson's rule, whose points are doubled until
/// it settles twice and agrees; a fault does not go away. Along a direction that leans (the first one does) there may
/// be 256; along others, where little slope and many kinks meet, 16, and then the last two changes count as noise.
/// Batch norms want eight values a channel or more: with m values, one of many channels has nearly equal ones
/// (deviation below t of its usual one with probability t^(m-1)), and there the loss is a step. `inputs` holds the
/// numbers of each graph input in the order they were made. Throws Error where their counts do not fit.
GradientReport check_gradient(Value loss, const std::vector<std::vector<float>>& inputs,
                              const GradientCheckOptions& options = {});

}  // namespace halftone

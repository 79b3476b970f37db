#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "halftone/graph/kernel.hpp"
#include "halftone/numeric/pointwise.hpp"

namespace halftone {

/// A convolution of x [n, h, w, c] with weight [k, r, s, c / groups] to y [n, p, q, k].
struct ConvProblem {
  std::int64_t n = 1, h = 1, w = 1, c = 1, k = 1, r = 1, s = 1, p = 1, q = 1;
  int stride_h = 1, stride_w = 1, pad_h = 0, pad_w = 0, dilation_h = 1, dilation_w = 1, groups = 1;
  bool operator==(const ConvProblem&) const = default;
};

/// [x, weight, optional bias] -> y, [d_output, weight] -> d_input, [x, d_output] -> d_weight.
enum class Direction { forward, d_input, d_weight };

/// The tensors of a convolution or one of its gradients, in the order of `Arguments`.
struct Operands {
  std::vector<ValueSpec> inputs;
  ValueSpec output;
};

/// One direction of a convolution; a dense layer is one with h = w = r = s = 1. y = activation(x * weight + bias).
struct Convolution {
  ConvProblem problem;
  Direction direction;
  Operands operands;
  std::optional<Activation> activation = {};
};

/// What a request for one of the operations `Conv2d`, `Dense`, their gradients and `ConvTranspose2d` asks of a device.
template <class Operation>
Convolution convolution_of(const Request& request);

}  // namespace halftone

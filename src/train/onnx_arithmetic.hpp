#pragma once
#include <limits>

#include "halftone/ops/spatial.hpp"
#include "src/train/onnx_shapes.hpp"

namespace halftone {

/// The operations that take numbers one by one.
class OnnxArithmetic : protected OnnxShapes {
 protected:
  using OnnxShapes::OnnxShapes;

  /// A function of one number leaves all else as it was.
  void activate_as(const Activation& activation) {
    Item x = item(0);
    x.value = activate(x.value, activation);
    put(std::move(x));
  }

  template <class F>
  void activation() {
    activate_as(F{});
    if constexpr (std::is_same_v<F, Sigmoid>) sigmoid_of_[node_->output(0)] = node_->input(0);
  }

  void leaky_relu() {
    const float slope = real("alpha", 0.01f);
    need(slope >= 0, "has a negative slope");
    activate_as(LeakyRelu{slope});
  }

  void gelu() {
    const AttributeProto* way = attribute("approximate");
    if (way && way->s() == "tanh")
      activate_as(GeluTanh{});
    else
      activate_as(Gelu{});
  }

  void hard_sigmoid() {
    const float alpha = real("alpha", 0.2f), beta = real("beta", 0.5f);
    need(std::abs(alpha - 1.0f / 6) < 1e-6f && beta == 0.5f,
         fmt::format("has alpha {} and beta {}: Halftone has 1/6 and 0.5", alpha, beta));
    activate_as(HardSigmoid{});
  }

  void clip() {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const float low = scalar(1, real("min", -infinity)), high = scalar(2, real("max", infinity));
    constexpr float most = std::numeric_limits<float>::max();
    if (low == 0 && high == 6)
      activate_as(Relu6{});
    else if (low == -1 && high == 1)
      activate_as(HardTanh{});
    else if (low == 0 && high >= most)
      activate_as(Relu{});
    else
      need(false, fmt::format("clips to [{}, {}]: Halftone has [0, 6], [-1, 1] and [0, infinity)", low, high));
  }

  void dropout() {
    Item x = item(0);
    const float rate = scalar(1, real("ratio", 0.5f));
    need(rate >= 0 && rate < 1, fmt::format("has the ratio {}", rate));
    if (rate > 0) x.value = halftone::dropout(x.value, rate);
    put(std::move(x));
  }

  void add() {
    if (is_of_numbers([](std::int64_t a, std::int64_t b) { return a + b; })) return;
    for (const int i : {0, 1})
      if (const auto erf = erf_of_.find(has(i) ? node_->input(i) : ""); erf != erf_of_.end()) {
        need(scalar_at(1 - i) == 1.0f, "adds something else than 1 to an Erf");
        one_and_erf_of_[node_->output(0)] = erf->second;
        return;
      }
    for (const int i : {0, 1})
      if (const TensorProto* tensor = constant_at(i)) {
        const Item x = item(1 - i);
        const std::int64_t c = x.value.shape().c;
        const int rank = tensor->dims_size();
        need(x.rank == 4 && elements_of(*tensor) == c && rank >= 3 && tensor->dims(rank - 3) == c,
             fmt::format("adds {}, which is not one number a channel", node_->input(i)));
        return put(add_channels(x.value, parameter(i, ".bias", Shape::vector(c), 1, floats(*tensor))), 4);
      }
    const auto [a, b] = alike();
    put({a.value + b.value, a.rank, a.image});
  }

  std::pair<Item, Item> alike() const {
    const Item a = item(0), b = item(1);
    need(a.rank == b.rank && a.image == b.image && a.value.shape() == b.value.shape(), "takes tensors of two shapes");
    return {a, b};
  }

  void mul() {
    need(node_->input_size() == 2, "has not two inputs");
    if (completes_gelu() || is_of_numbers([](std::int64_t a, std::int64_t b) { return a * b; })) return;
    for (const int i : {0, 1}) {
      const auto factor = scalar_at(i);
      if (factor) return scale_by(1 - i, *factor);
      const auto gate = sigmoid_of_.find(node_->input(i));
      if (gate != sigmoid_of_.end() && gate->second == node_->input(1 - i)) {
        Item x = item(1 - i);
        x.value = silu(x.value);
        return put(std::move(x));
      }
    }
    for (const auto& [x, factors] : {std::pair(item(0), item(1)), std::pair(item(1), item(0))})
      if (const Shape s = x.value.shape();
          x.rank == 4 && factors.rank == 4 && s.h * s.w > 1 && factors.value.shape() == Shape{s.n, 1, 1, s.c})
        return put(scale_channels(x.value, factors.value), 4);
    const auto [a, b] = alike();
    put({a.value * b.value, a.rank, a.image});
  }

  void sub() {
    if (is_of_numbers([](std::int64_t a, std::int64_t b) { return a - b; })) return;
    const auto [a, b] = alike();
    put({a.value + scale(b.value, -1), a.rank, a.image});
  }

  void div() {
    const auto quotient = [&](std::int64_t a, std::int64_t b) { return need(b != 0, "divides by 0"), a / b; };
    if (is_of_numbers(quotient)) return;
    const auto divisor = scalar_at(1);
    need(divisor && *divisor != 0, "divides by something else than one number that is known and not 0");
    scale_by(0, 1 / *divisor);
  }

  void scale_by(int i, float factor) {
    if (const auto gelu = twice_gelu_.find(node_->input(i)); gelu != twice_gelu_.end() && factor == 0.5f)
      return put(gelu->second);
    Item x = item(i);
    x.value = scale(x.value, factor);
    scaled_[node_->output(0)] = {node_->input(i), factor};
    put(std::move(x));
  }

  void negate() { scale_by(0, -1); }

  /// A part of x / 2 (1 + erf(x / sqrt(2))).
  void erf() {
    const auto x = scaled_.find(has(0) ? node_->input(0) : "");
    if (x == scaled_.end() || std::abs(x->second.second - std::sqrt(0.5f)) > 1e-6f)
      refuse("is a Erf, an operation that Halftone lacks but in GELU");
    erf_of_[node_->output(0)] = x->second.first;
  }

  /// Whether this multiplies x, or x / 2, by 1 + erf(x / sqrt(2)).
  bool completes_gelu() {
    for (const int i : {0, 1}) {
      const auto one_more = one_and_erf_of_.find(node_->input(i));
      if (one_more == one_and_erf_of_.end()) continue;
      const std::string &x = one_more->second, &other = node_->input(1 - i);
      const auto half = scaled_.find(other);
      const bool halved = half != scaled_.end() && half->second == std::pair(x, 0.5f);
      need(other == x || halved, "multiplies something else than x by 1 + erf(x / sqrt(2))");
      Item y = items_.at(x);
      y.value = halftone::activate(y.value, Gelu{});
      if (!halved) {  // and a half follows
        twice_gelu_[node_->output(0)] = y;
        y.value = scale(y.value, 2);
      }
      put(std::move(y));
      return true;
    }
    return false;
  }

  // What is known of values that are parts of an operation.
  std::map<std::string, std::string> sigmoid_of_, erf_of_, one_and_erf_of_;
  std::map<std::string, std::pair<std::string, float>> scaled_;
  std::map<std::string, Item> twice_gelu_;
};

}  // namespace halftone

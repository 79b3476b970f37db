#include <cmath>
#include <vector>

#include "kernels/cpu/convolution.hpp"

namespace halftone::cpu {
namespace {

std::vector<double> read(const ValueSpec& tensor, const Memory& memory) {
  const auto* data = static_cast<const std::byte*>(memory.data);
  std::vector<double> values;
  for (std::int64_t i = 0, count = tensor.shape.elements(); i < count; ++i)
    values.push_back(read_number(tensor.storage, data, count, i, memory.read_scale(tensor.storage)));
  return values;
}

void write(const ValueSpec& tensor, const std::vector<float>& values, const Arguments& arguments) {
  const Memory& memory = arguments.outputs[0];
  const bool random = tensor.storage.rounding == Rounding::stochastic;
  write_numbers(tensor.storage, static_cast<std::byte*>(memory.data), std::ssize(values), 0, std::ssize(values),
                values.data(), random ? arguments.key(memory) : RandomKey{}, memory.write_scale(tensor.storage),
                memory.range && tensor.storage.noticed ? &memory.range->noticed : nullptr);
}

/// An f32 number that rounds to any narrower format as x itself does: cut off, its last bit set where something was
/// lost (Boldo & Melquiond 2008, "rounding to odd").
float rounded_to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  if (nearest == x || std::isnan(x)) return nearest;
  const auto bits = bit_cast<std::uint32_t>(nearest);
  return bit_cast<float>((std::abs(nearest) > std::abs(x) ? bits - 1 : bits) | 1);
}

/// Calls f(index in x, index in weight, index in y) for every product of the convolution.
template <class F>
void for_each_product(const ConvProblem& p, F&& f) {
  const std::int64_t channels = p.c / p.groups, filters = p.k / p.groups;
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < p.p; ++i)
      for (std::int64_t j = 0; j < p.q; ++j)
        for (std::int64_t k = 0; k < p.k; ++k)
          for (std::int64_t r = 0; r < p.r; ++r)
            for (std::int64_t s = 0; s < p.s; ++s) {
              const std::int64_t h = i * p.stride_h - p.pad_h + r * p.dilation_h;
              const std::int64_t w = j * p.stride_w - p.pad_w + s * p.dilation_w;
              if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
              for (std::int64_t c = 0; c < channels; ++c)
                f(static_cast<std::size_t>(((n * p.h + h) * p.w + w) * p.c + k / filters * channels + c),
                  static_cast<std::size_t>(((k * p.r + r) * p.s + s) * channels + c),
                  static_cast<std::size_t>(((n * p.p + i) * p.q + j) * p.k + k));
            }
}

void run(const Convolution& convolution, const Arguments& arguments) {
  const auto& [problem, direction, operands, activation] = convolution;
  const auto a = read(operands.inputs[0], arguments.inputs[0]), b = read(operands.inputs[1], arguments.inputs[1]);
  std::vector<double> sums(static_cast<std::size_t>(operands.output.shape.elements()));
  for_each_product(problem, [&, direction = direction](std::size_t x, std::size_t w, std::size_t y) {
    if (direction == Direction::forward) sums[y] += a[x] * b[w];
    if (direction == Direction::d_input) sums[x] += a[y] * b[w];
    if (direction == Direction::d_weight) sums[w] += a[x] * b[y];
  });
  const auto bias = operands.inputs.size() > 2 ? read(operands.inputs[2], arguments.inputs[2]) : std::vector<double>(1);
  const bool narrow = bits_of(operands.output.storage.code) <= 16;
  std::vector<float> results;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const double y = sums[i] + bias[i % bias.size()];
    const float x = narrow ? rounded_to_odd(y) : static_cast<float>(y);
    results.push_back(activation ? std::visit([x](const auto& f) { return f.value(x); }, *activation) : x);
  }
  write(operands.output, results, arguments);
}

}  // namespace

Launch reference(const Convolution& convolution) {
  return {[convolution](const Arguments& arguments) { run(convolution, arguments); }};
}

}  // namespace halftone::cpu

#include "kernels/cpu/reference_convolution.hpp"

#include <vector>

namespace halftone::cpu {
namespace {

std::vector<double> read(const TensorSpec& tensor, const Memory& memory) {
  const std::int64_t count = tensor.shape.elements();
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    values[static_cast<std::size_t>(i)] = read_number(tensor.storage, static_cast<const std::byte*>(memory.data), count,
                                                      i, memory.range ? memory.range->scale : 1.0f);
  return values;
}

void write(const TensorSpec& tensor, const std::vector<double>& values, const Arguments& arguments) {
  const Memory& memory = arguments.outputs[0];
  const std::vector<float> numbers(values.begin(), values.end());
  const bool random = tensor.storage.rounding == Rounding::stochastic;
  write_numbers(tensor.storage, static_cast<std::byte*>(memory.data), std::ssize(numbers), 0, std::ssize(numbers),
                numbers.data(), random ? arguments.key(memory) : RandomKey{}, memory.range ? memory.range->next : 1.0f,
                tensor.storage.noticed ? &memory.range->noticed : nullptr);
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

}  // namespace

void ReferenceConvolution::run(const Arguments& arguments) const {
  const auto a = read(operands.inputs[0], arguments.inputs[0]), b = read(operands.inputs[1], arguments.inputs[1]);
  std::vector<double> sums(static_cast<std::size_t>(operands.output.shape.elements()));
  for_each_product(problem, [&](std::size_t x, std::size_t w, std::size_t y) {
    if (direction == Direction::forward) sums[y] += a[x] * b[w];
    if (direction == Direction::d_input) sums[x] += a[y] * b[w];
    if (direction == Direction::d_weight) sums[w] += a[x] * b[y];
  });
  if (operands.inputs.size() > 2) {
    const auto bias = read(operands.inputs[2], arguments.inputs[2]);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += bias[i % bias.size()];
  }
  if (activation)
    for (double& sum : sums)
      sum = std::visit([&](const auto& f) { return f.value(static_cast<float>(sum)); }, *activation);
  write(operands.output, sums, arguments);
}

}  // namespace halftone::cpu

#include "kernels/cpu/reference_convolution.hpp"

#include <vector>

namespace halftone::cpu {
namespace {

std::vector<double> read(DType dtype, const void* from, std::int64_t count) {
  std::vector<double> values(static_cast<std::size_t>(count));
  visit_format(dtype, [&](auto format) {
    using Format = decltype(format);
    for (std::int64_t i = 0; i < count; ++i)
      values[static_cast<std::size_t>(i)] = Format::decode(static_cast<const typename Format::Storage*>(from)[i]);
  });
  return values;
}

void write(DType dtype, const std::vector<double>& values, void* to) {
  visit_format(dtype, [&](auto format) {
    using Format = decltype(format);
    for (std::size_t i = 0; i < values.size(); ++i)
      static_cast<typename Format::Storage*>(to)[i] = Format::encode(static_cast<float>(values[i]));
  });
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

std::int64_t input_count(const ConvProblem& p) { return p.n * p.h * p.w * p.c; }
std::int64_t output_count(const ConvProblem& p) { return p.n * p.p * p.q * p.k; }
std::int64_t weight_count(const ConvProblem& p) { return p.k * p.r * p.s * (p.c / p.groups); }
std::vector<double> zeros(std::int64_t count) { return std::vector<double>(static_cast<std::size_t>(count)); }

}  // namespace

void ReferenceForward::run(const void* x_data, const void* weight_data, const void* bias_data, void* y_data) const {
  const auto x = read(input, x_data, input_count(problem)), w = read(weight, weight_data, weight_count(problem));
  const auto b = bias_data ? read(bias, bias_data, problem.k) : zeros(problem.k);
  auto y = zeros(output_count(problem));
  for_each_product(problem, [&](auto xi, auto wi, auto yi) { y[yi] += x[xi] * w[wi]; });
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] += b[i % b.size()];
    if (activation) y[i] = std::visit([&](const auto& f) { return f.value(static_cast<float>(y[i])); }, *activation);
  }
  write(output, y, y_data);
}

void ReferenceDInput::run(const void* d_output_data, const void* weight_data, void* d_input_data) const {
  const auto dy = read(d_output, d_output_data, output_count(problem));
  const auto w = read(weight, weight_data, weight_count(problem));
  auto dx = zeros(input_count(problem));
  for_each_product(problem, [&](auto xi, auto wi, auto yi) { dx[xi] += dy[yi] * w[wi]; });
  write(d_input, dx, d_input_data);
}

void ReferenceDWeight::run(const void* x_data, const void* d_output_data, void* d_weight_data) const {
  const auto x = read(input, x_data, input_count(problem));
  const auto dy = read(d_output, d_output_data, output_count(problem));
  auto dw = zeros(weight_count(problem));
  for_each_product(problem, [&](auto xi, auto wi, auto yi) { dw[wi] += x[xi] * dy[yi]; });
  write(d_weight, dw, d_weight_data);
}

}  // namespace halftone::cpu

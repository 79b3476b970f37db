#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/convolution.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/storage.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/wide_convolution.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Fixed point of more bits than an f32 number holds: codes are multiplied and summed as f64 numbers, and a sum is
// rounded once. A pixel's taps are gathered into a patch; the three directions are sums over patches. Sums below 2^53
// are exact.
HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

double dot(const double* a, const double* b, std::int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

void add_scaled(double factor, const double* x, std::int64_t count, double* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {
namespace {

class WideConvolution {
 public:
  WideConvolution(const Convolution& convolution, Isa isa, int threads)
      : problem_(convolution.problem),
        direction_(convolution.direction),
        operands_(convolution.operands),
        rectified_(convolution.activation.has_value()),
        channels_(problem_.c / problem_.groups),
        filters_(problem_.k / problem_.groups),
        taps_(problem_.r * problem_.s * channels_),
        threads_(threads),
        dot_(HALFTONE_PER_ISA(isa, dot)),
        add_scaled_(HALFTONE_PER_ISA(isa, add_scaled)) {
    int exponent = -operands_.output.storage.exponent;
    for (int i = 0; i < 2; ++i) exponent += operands_.inputs[static_cast<std::size_t>(i)].storage.exponent;
    to_code_ = std::ldexp(1.0, exponent);
    if (operands_.inputs.size() > 2)
      bias_to_code_ = std::ldexp(1.0, operands_.inputs[2].storage.exponent - operands_.output.storage.exponent);
  }

  /// The weights, then for each thread the most that a task sums and a patch.
  std::size_t workspace() const {
    return static_cast<std::size_t>(problem_.k * taps_ + threads_ * (sums() + taps_)) * sizeof(double);
  }

  void operator()(const Arguments& a) const {
    auto* weights = static_cast<double*>(a.workspace);
    if (direction_ != Direction::d_weight) std::copy_n(a.in<std::int32_t>(1), problem_.k * taps_, weights);
    const std::int64_t tasks = direction_ == Direction::d_weight ? problem_.k : problem_.n;
    parallel_for(threads_, tasks, [&](std::int64_t task, int thread) {
      double* sum = weights + problem_.k * taps_ + thread * (sums() + taps_);
      std::fill_n(sum, sums(), 0.0);
      if (direction_ == Direction::forward) forward(a, weights, task, sum, sum + sums());
      if (direction_ == Direction::d_input) d_input(a, weights, task, sum, sum + sums());
      if (direction_ == Direction::d_weight) d_weight(a, task, sum, sum + sums());
      store(a, task, sum);
    });
  }

 private:
  std::int64_t pixels() const { return problem_.p * problem_.q; }
  std::int64_t sums() const {
    if (direction_ == Direction::d_weight) return taps_;
    return direction_ == Direction::forward ? pixels() * problem_.k : problem_.h * problem_.w * problem_.c;
  }

  /// Calls f(first channel of x in its image, first place in the patch) for the taps of a pixel inside the image.
  template <class F>
  void for_each_tap(std::int64_t pixel, std::int64_t group, F&& f) const {
    const ConvProblem& p = problem_;
    for (std::int64_t r = 0; r < p.r; ++r)
      for (std::int64_t s = 0; s < p.s; ++s) {
        const std::int64_t h = pixel / p.q * p.stride_h - p.pad_h + r * p.dilation_h;
        const std::int64_t w = pixel % p.q * p.stride_w - p.pad_w + s * p.dilation_w;
        if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
        f((h * p.w + w) * p.c + group * channels_, (r * p.s + s) * channels_);
      }
  }

  void gather(const std::int32_t* image, std::int64_t pixel, std::int64_t group, double* patch) const {
    std::fill_n(patch, taps_, 0.0);
    for_each_tap(pixel, group,
                 [&](std::int64_t x, std::int64_t tap) { std::copy_n(image + x, channels_, patch + tap); });
  }

  void forward(const Arguments& a, const double* weights, std::int64_t n, double* y, double* patch) const {
    const std::int32_t* image = a.in<std::int32_t>(0) + n * problem_.h * problem_.w * problem_.c;
    for (std::int64_t pixel = 0; pixel < pixels(); ++pixel)
      for (std::int64_t group = 0; group < problem_.groups; ++group) {
        gather(image, pixel, group, patch);
        for (std::int64_t k = group * filters_; k < (group + 1) * filters_; ++k)
          y[pixel * problem_.k + k] = dot_(patch, weights + k * taps_, taps_);
      }
  }

  void d_input(const Arguments& a, const double* weights, std::int64_t n, double* dx, double* patch) const {
    const std::int32_t* dy = a.in<std::int32_t>(0) + n * pixels() * problem_.k;
    for (std::int64_t pixel = 0; pixel < pixels(); ++pixel)
      for (std::int64_t group = 0; group < problem_.groups; ++group) {
        std::fill_n(patch, taps_, 0.0);
        for (std::int64_t k = group * filters_; k < (group + 1) * filters_; ++k)
          if (const std::int32_t d = dy[pixel * problem_.k + k]; d != 0)
            add_scaled_(d, weights + k * taps_, taps_, patch);
        for_each_tap(pixel, group, [&](std::int64_t x, std::int64_t tap) {
          for (std::int64_t c = 0; c < channels_; ++c) dx[x + c] += patch[tap + c];
        });
      }
  }

  void d_weight(const Arguments& a, std::int64_t k, double* dw, double* patch) const {
    for (std::int64_t n = 0; n < problem_.n; ++n)
      for (std::int64_t pixel = 0; pixel < pixels(); ++pixel) {
        const std::int32_t d = a.in<std::int32_t>(1)[(n * pixels() + pixel) * problem_.k + k];
        if (d == 0) continue;
        gather(a.in<std::int32_t>(0) + n * problem_.h * problem_.w * problem_.c, pixel, k / filters_, patch);
        add_scaled_(d, patch, taps_, dw);
      }
  }

  void store(const Arguments& a, std::int64_t task, const double* sum) const {
    const Storage& storage = operands_.output.storage;
    const bool random = storage.rounding == Rounding::stochastic;
    const RandomKey key = random ? a.key(a.outputs[0]) : RandomKey{};
    RangeState* const range = storage.noticed ? a.outputs[0].range : nullptr;
    const Grid grid = storage.grid();
    Noticed noticed;
    const double last = std::ldexp(1.0, (storage.width > 0 ? storage.width : 32) - 1);
    for (std::int64_t i = 0; i < sums(); ++i) {
      double y = sum[i] * to_code_;
      if (operands_.inputs.size() > 2) y += a.in<std::int32_t>(2)[i % problem_.k] * bias_to_code_;
      if (rectified_) y = std::max(y, 0.0);
      const double whole = std::trunc(y), rest = std::abs(y - whole);
      const bool up =
          random ? key.uniform(task * sums() + i) < rest
                 : storage.rounding == Rounding::nearest && (rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2) != 0));
      const double rounded = whole + (up ? std::copysign(1.0, y) : 0.0);
      if (range) notice(grid.largest, static_cast<float>(y), static_cast<float>(rounded), noticed);
      a.out<std::int32_t>(0)[task * sums() + i] =
          static_cast<std::int32_t>(std::min(std::max(rounded, -last), last - 1));
    }
    if (range) add_atomically(range->noticed, noticed);
  }

  ConvProblem problem_;
  Direction direction_;
  Operands operands_;
  bool rectified_;
  std::int64_t channels_, filters_, taps_;
  int threads_;
  double (*dot_)(const double*, const double*, std::int64_t);
  void (*add_scaled_)(double, const double*, std::int64_t, double*);
  double to_code_, bias_to_code_ = 1;
};

}  // namespace

Launch wide(const Convolution& convolution, Isa isa, int threads) {
  const WideConvolution run(convolution, isa, threads);
  return {run, run.workspace()};
}

bool is_wide(const Operands& operands) {
  const auto fixed = [](const ValueSpec& value) {
    const Storage& s = value.storage;
    return s.code == DType::i32 && s.scaling == Scaling::constant;
  };
  return std::all_of(operands.inputs.begin(), operands.inputs.end(), fixed) && fixed(operands.output);
}

std::string decline_wide(const Convolution& convolution) {
  if (!is_wide(convolution.operands)) return "not in 32-bit fixed point";
  if (convolution.activation && !std::get_if<Relu>(&*convolution.activation)) return "an activation other than relu";
  return {};
}

}  // namespace halftone::cpu
#endif

#include "kernels/cpu/convolution.hpp"

#include <algorithm>

#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "kernels/cpu/gather_gemm.hpp"
#include "kernels/cpu/weight_gradient.hpp"

namespace halftone::cpu {
namespace {

WeightOrder order_of(const ConvProblem& c, bool result_is_filter) {
  return {.filters = c.k / c.groups,
          .taps_h = c.r,
          .taps_w = c.s,
          .channels = c.c / c.groups,
          .result_is_filter = result_is_filter};
}

GatherGemm forward(const Convolution& c, Isa isa, int threads) {
  return {forward_gather(c.problem),
          {.height = c.problem.p, .width = c.problem.q},
          order_of(c.problem, true),
          c.operands,
          c.activation,
          isa,
          threads};
}

/// One gather for each residue of the input position modulo the stride.
struct InputGradient {
  std::vector<GatherGemm> gemms;

  InputGradient(const Convolution& c, Isa isa, int threads) {
    const ConvProblem& p = c.problem;
    for (std::int64_t row = 0; row < std::min<std::int64_t>(p.stride_h, p.h); ++row) {
      for (std::int64_t col = 0; col < std::min<std::int64_t>(p.stride_w, p.w); ++col) {
        const Scatter scatter{p.h, p.w, row, col, p.stride_h, p.stride_w};
        gemms.emplace_back(gradient_gather(p, row, col), scatter, order_of(p, false), c.operands, c.activation, isa,
                           threads);
      }
    }
  }
  std::size_t workspace() const {
    std::size_t most = 0;
    for (const GatherGemm& gemm : gemms) most = std::max(most, gemm.workspace());
    return most;
  }
  void run(const Arguments& arguments) const {
    for (const GatherGemm& gemm : gemms) gemm.run(arguments);
  }
};

/// A launch that owns an engine object.
template <class Engine>
Launch launch(Engine engine) {
  const std::size_t workspace = engine.workspace();
  return {[engine = std::make_shared<const Engine>(std::move(engine))](const Arguments& a) { engine->run(a); },
          workspace};
}

Operands operands_of(const Request& request) {
  return {{request.inputs.begin(), request.inputs.end()}, request.outputs[0]};
}

ConvProblem problem_of(const ConvAttributes& conv, const Shape& x, const Shape& w, const Shape& y) {
  return {.n = x.n,
          .h = x.h,
          .w = x.w,
          .c = x.c,
          .k = w.n,
          .r = w.h,
          .s = w.w,
          .p = y.h,
          .q = y.w,
          .stride_h = conv.stride.h,
          .stride_w = conv.stride.w,
          .pad_h = conv.padding.h,
          .pad_w = conv.padding.w,
          .dilation_h = conv.dilation.h,
          .dilation_w = conv.dilation.w,
          .groups = conv.groups};
}

ConvProblem problem_of(std::int64_t n, const Shape& weight) { return {.n = n, .c = weight.c, .k = weight.n}; }

}  // namespace

Convolution conv2d(const Request& r) {
  const auto& op = r.attributes<Conv2d>();
  return {problem_of(op.conv, r.inputs[0].shape, r.inputs[1].shape, r.outputs[0].shape), Direction::forward,
          operands_of(r), op.epilogue};
}

Convolution conv2d_d_input(const Request& r) {
  return {problem_of(r.attributes<Conv2dDInput>().conv, r.outputs[0].shape, r.inputs[1].shape, r.inputs[0].shape),
          Direction::d_input, operands_of(r)};
}

Convolution conv2d_d_weight(const Request& r) {
  return {problem_of(r.attributes<Conv2dDWeight>().conv, r.inputs[0].shape, r.outputs[0].shape, r.inputs[1].shape),
          Direction::d_weight, operands_of(r)};
}

Convolution dense(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.inputs[1].shape), Direction::forward, operands_of(r),
          r.attributes<Dense>().epilogue};
}

Convolution dense_d_input(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.inputs[1].shape), Direction::d_input, operands_of(r)};
}

Convolution dense_d_weight(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.outputs[0].shape), Direction::d_weight, operands_of(r)};
}

Launch implicit_gemm(const Convolution& c, Isa isa, int threads) {
  if (c.direction == Direction::forward) return launch(forward(c, isa, threads));
  if (c.direction == Direction::d_input) return launch(InputGradient(c, isa, threads));
  return launch(WeightGradient(forward_gather(c.problem), c.problem.k / c.problem.groups, c.operands, isa, threads));
}

}  // namespace halftone::cpu

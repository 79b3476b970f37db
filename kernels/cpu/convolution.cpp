#include "kernels/cpu/convolution.hpp"

#include <algorithm>

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

}  // namespace

Launch implicit_gemm(const Convolution& c, Isa isa, int threads) {
  if (c.direction == Direction::forward) return launch(forward(c, isa, threads));
  if (c.direction == Direction::d_input) return launch(InputGradient(c, isa, threads));
  return launch(WeightGradient(forward_gather(c.problem), c.problem.k / c.problem.groups, c.operands, isa, threads));
}

}  // namespace halftone::cpu

#include "kernels/cpu/convolution.hpp"

#include <algorithm>

namespace halftone::cpu {
namespace {

WeightOrder order_of(const ConvProblem& c, bool result_is_filter) {
  return {.filters = c.k / c.groups,
          .taps_h = c.r,
          .taps_w = c.s,
          .channels = c.c / c.groups,
          .result_is_filter = result_is_filter};
}

}  // namespace

ConvForward::ConvForward(const ConvProblem& problem, const Operands& operands, std::optional<Activation> activation,
                         Isa isa, int threads)
    : gemm_(forward_gather(problem), {.height = problem.p, .width = problem.q}, order_of(problem, true), operands,
            activation, isa, threads) {}

ConvDInput::ConvDInput(const ConvProblem& problem, const Operands& operands, Isa isa, int threads) {
  for (std::int64_t row = 0; row < std::min<std::int64_t>(problem.stride_h, problem.h); ++row) {
    for (std::int64_t col = 0; col < std::min<std::int64_t>(problem.stride_w, problem.w); ++col) {
      const Scatter scatter{.height = problem.h,
                            .width = problem.w,
                            .row0 = row,
                            .col0 = col,
                            .row_step = problem.stride_h,
                            .col_step = problem.stride_w};
      gemms_.emplace_back(gradient_gather(problem, row, col), scatter, order_of(problem, false), operands, std::nullopt,
                          isa, threads);
    }
  }
}

std::size_t ConvDInput::workspace() const {
  std::size_t most = 0;
  for (const GatherGemm& gemm : gemms_) most = std::max(most, gemm.workspace());
  return most;
}

void ConvDInput::run(const Arguments& arguments) const {
  for (const GatherGemm& gemm : gemms_) gemm.run(arguments);
}

ConvDWeight::ConvDWeight(const ConvProblem& problem, const Operands& operands, Isa isa, int threads)
    : gradient_(forward_gather(problem), problem.k / problem.groups, operands, isa, threads) {}

}  // namespace halftone::cpu

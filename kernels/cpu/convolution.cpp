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

ConvForward::ConvForward(const ConvProblem& problem, Formats formats, std::optional<Activation> activation,
                         bool has_bias, Isa isa, int threads)
    : gemm_(forward_gather(problem), {.height = problem.p, .width = problem.q}, order_of(problem, true), formats,
            activation, has_bias, isa, threads) {}

void ConvForward::run(const void* x, const void* weight, const void* bias, void* y, void* workspace) const {
  gemm_.run(x, weight, bias, y, workspace);
}

ConvDInput::ConvDInput(const ConvProblem& problem, Formats formats, Isa isa, int threads) {
  for (std::int64_t row = 0; row < std::min<std::int64_t>(problem.stride_h, problem.h); ++row) {
    for (std::int64_t col = 0; col < std::min<std::int64_t>(problem.stride_w, problem.w); ++col) {
      gemms_.emplace_back(gradient_gather(problem, row, col),
                          Scatter{.height = problem.h,
                                  .width = problem.w,
                                  .row0 = row,
                                  .col0 = col,
                                  .row_step = problem.stride_h,
                                  .col_step = problem.stride_w},
                          order_of(problem, false),
                          GatherGemm::Formats{formats.d_output, formats.weight, DType::f32, formats.d_input},
                          std::nullopt, false, isa, threads);
    }
  }
}

std::size_t ConvDInput::workspace() const {
  std::size_t most = 0;
  for (const GatherGemm& gemm : gemms_) most = std::max(most, gemm.workspace());
  return most;
}

void ConvDInput::run(const void* d_output, const void* weight, void* d_input, void* workspace) const {
  for (const GatherGemm& gemm : gemms_) gemm.run(d_output, weight, nullptr, d_input, workspace);
}

ConvDWeight::ConvDWeight(const ConvProblem& problem, Formats formats, Isa isa, int threads)
    : gradient_(forward_gather(problem), problem.k / problem.groups, formats, isa, threads) {}

void ConvDWeight::run(const void* x, const void* d_output, void* d_weight, void* workspace) const {
  gradient_.run(x, d_output, d_weight, workspace);
}

}  // namespace halftone::cpu

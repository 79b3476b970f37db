#include "kernels/cpu/convolution.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/cpu/col2im.hpp"
#include "kernels/cpu/cost.hpp"
#include "kernels/cpu/gather_gemm.hpp"
#include "kernels/cpu/weight_gradient.hpp"
#include "kernels/cpu/winograd.hpp"
#include "kernels/cpu/winograd_gradient.hpp"

namespace halftone::cpu {
namespace {

WeightOrder order_of(const ConvProblem& c, bool result_is_filter) {
  return {.filters = c.k / c.groups,
          .taps_h = c.r,
          .taps_w = c.s,
          .channels = c.c / c.groups,
          .result_is_filter = result_is_filter};
}

Gather without_padding_taps(Gather gather) {
  gather.drop_padding_taps();
  return gather;
}

using Unit = std::optional<PairUnit>;

GatherGemm forward(const Convolution& c, Isa isa, int threads, Unit unit = {}) {
  return {without_padding_taps(forward_gather(c.problem)),
          {.height = c.problem.p, .width = c.problem.q},
          order_of(c.problem, true),
          c.operands,
          c.activation,
          isa,
          threads,
          nullptr,
          unit};
}

WeightGradient weight_gradient(const Convolution& c, Isa isa, int threads, Unit unit = {}) {
  return {forward_gather(c.problem), c.problem.k / c.problem.groups, c.operands, isa, threads, unit};
}

/// One gather for each residue of the input position modulo the stride.
struct InputGradient {
  std::vector<GatherGemm> gemms;

  InputGradient(const Convolution& c, Isa isa, int threads, Unit unit = {}) {
    const ConvProblem& p = c.problem;
    for (std::int64_t row = 0; row < std::min<std::int64_t>(p.stride_h, p.h); ++row) {
      for (std::int64_t col = 0; col < std::min<std::int64_t>(p.stride_w, p.w); ++col) {
        const Scatter scatter{p.h, p.w, row, col, p.stride_h, p.stride_w};
        gemms.emplace_back(without_padding_taps(gradient_gather(p, row, col)), scatter, order_of(p, false), c.operands,
                           c.activation, isa, threads, nullptr, unit);
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

Launch direct(const Convolution& c, Isa isa, int threads, Unit unit = {}) {
  if (c.direction == Direction::forward) return launch(forward(c, isa, threads, unit));
  if (c.direction == Direction::d_input) return launch(InputGradient(c, isa, threads, unit));
  return launch(weight_gradient(c, isa, threads, unit));
}

GatherGemm of_tiles(const Convolution& c, Isa isa, int threads) {
  const ConvProblem& p = c.problem;
  const bool is_forward = c.direction == Direction::forward;
  Gather gather = is_forward ? forward_gather(p) : gradient_gather(p, 0, 0);
  const Blocks tiles = cut_squares(p.n, gather.rows.out, gather.cols.out, Winograd::tile);
  const Scatter scatter{.height = gather.rows.out, .width = gather.cols.out};
  return {std::move(gather), scatter, order_of(p, is_forward), c.operands, c.activation, isa, threads, &tiles};
}

}  // namespace

Launch winograd(const Convolution& c, Isa isa, int threads) {
  if (c.direction == Direction::d_weight) return launch(WinogradGradient(weight_gradient(c, isa, threads)));
  return launch(Winograd(of_tiles(c, isa, threads)));
}

std::string decline_winograd(const Convolution& c) {
  const ConvProblem& p = c.problem;
  if (p.r != 3 || p.s != 3) return "the filter is not 3 x 3";
  if (p.stride_h != 1 || p.stride_w != 1 || p.dilation_h != 1 || p.dilation_w != 1) return "stride or dilation";
  if (p.groups != 1) return "groups";
  const auto floating = [](const ValueSpec& value) { return epsilon_of(value.storage.code) < 1; };
  if (!std::all_of(c.operands.inputs.begin(), c.operands.inputs.end(), floating) || !floating(c.operands.output))
    return "sums of fixed point are exact";
  return {};
}

Launch col2im(const Convolution& c, Isa isa, int threads) { return launch(Col2im(c, isa, threads)); }

std::string decline_col2im(const Convolution& c) {
  const ConvProblem& p = c.problem;
  if (c.direction != Direction::d_input) return "not a data gradient";
  if (p.groups != 1) return "groups";
  if (p.dilation_w != 1) return "dilation";
  if (c.operands.inputs.size() > 2 || c.activation) return "bias or activation";
  if (p.r * p.s == 1 && p.stride_h * p.stride_w == 1) return "no tap is left out";
  return {};
}

Launch implicit_gemm(const Convolution& c, Isa isa, int threads) { return direct(c, isa, threads); }

Launch pairs(const Convolution& c, PairUnit unit, Isa isa, int threads) { return direct(c, isa, threads, unit); }
Launch pairs(const Convolution& c, Isa isa, int threads) {
  return pairs(c, isa == Isa::amx ? PairUnit::tile : PairUnit::dot, isa, threads);
}

std::string decline_pairs(const Convolution& c) {
  if (c.problem.groups != 1) return "groups";
  const Storage bf16 = DType::bf16;
  if (c.operands.inputs[0].storage != bf16 || c.operands.inputs[1].storage != bf16) return "not plain bf16";
  return {};
}

std::string decline(Way way, const Convolution& c, Isa isa, bool direct_only) {
  if (way == Way::winograd) return direct_only ? "algorithms: direct" : decline_winograd(c);
  if (way == Way::pairs) {
    const std::string reason = decline_pairs(c);
    return reason.empty() && isa < Isa::avx512_bf16 ? "isa " + std::string(name_of(isa)) : reason;
  }
  if (way == Way::col2im)
    if (std::string reason = decline_col2im(c); !reason.empty()) return reason;
  return is_wide(c.operands) ? "sums in f32 would lose bits of 32-bit fixed point" : "";
}

std::string prefer_other(Way way, const Convolution& c, Isa isa, bool direct_only) {
  if (std::string reason = decline(way, c, isa, direct_only); !reason.empty()) return reason;
  const auto cost = [&](Way which) { return predicted_cost(which, c.problem, c.direction, isa); };
  for (Way other : all_ways)
    if (cost(other) < cost(way) && decline(other, c, isa, direct_only).empty())
      return fmt::format("predicted to take {:.2f} of {}'s time", cost(way) / cost(other), name_of(other));
  return {};
}

}  // namespace halftone::cpu

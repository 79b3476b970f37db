#include "kernels/cpu/col2im.hpp"

#include <algorithm>
#include <array>

#include "kernels/cpu/parallel.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/col2im.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/microkernel-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {
namespace {

/// to [count] += from; whole vectors are read and written.
HWY_INLINE void add_to(const float* HWY_RESTRICT from, std::int64_t count, float* HWY_RESTRICT to) {
  const Vectors v;
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Add(hn::LoadU(v, to + i), hn::LoadU(v, from + i)), v, to + i);
  if (i == count) return;
  const auto rest = hn::FirstN(v, static_cast<std::size_t>(count - i));
  hn::StoreU(hn::Add(hn::LoadU(v, to + i), hn::IfThenElseZero(rest, hn::LoadU(v, from + i))), v, to + i);
}

/// One run of a `Col2im`.
struct Col2imRun {
  const Col2im& plan;
  const ConvProblem& c;
  Input d_output, weight;
  Output d_input;
  float* workspace;

  Col2imRun(const Col2im& plan, const Arguments& arguments)
      : plan(plan),
        c(plan.problem),
        d_output(plan.d_output, arguments.inputs[0]),
        weight(plan.weight, arguments.inputs[1]),
        d_input(plan.d_input, arguments, 0),
        workspace(static_cast<float*>(arguments.workspace)) {}

  float* panel(std::size_t residue, const DepthSlice& slice, std::int64_t col) const {
    return workspace + (plan.bases[residue] + slice.base) * plan.padded + slice.depth * col;
  }
  std::int64_t panel_width(std::int64_t col) const { return std::min(tile_width, plan.padded - col); }

  void pack(std::size_t residue, const DepthSlice& slice, std::int64_t col) const {
    const std::int64_t width = panel_width(col), used = std::min(width, plan.run_length - col);
    const auto& tap = plan.gathers[residue].rows.tap;
    float* to = panel(residue, slice, col);
    for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t)
      for (std::int64_t k = slice.channel; k < slice.channel + slice.channels; ++k, to += width) {
        weight.copy((k * c.r + tap[static_cast<std::size_t>(t)]) * plan.run_length + col, used, to);
        std::fill(to + used, to + width, 0.0f);
      }
  }

  void pack_weight() const {
    const std::int64_t panels = (plan.padded + tile_width - 1) / tile_width;
    for (std::size_t residue = 0; residue < plan.gathers.size(); ++residue) {
      const std::vector<DepthSlice>& slices = plan.gathers[residue].slices;
      parallel_for(plan.threads, std::ssize(slices) * panels, [&](std::int64_t task, int) {
        pack(residue, slices[static_cast<std::size_t>(task / panels)], task % panels * tile_width);
      });
    }
  }

  /// The rows of d_output that rows [y0, y1) of d_input read.
  std::pair<std::int64_t, std::int64_t> rows_read(std::int64_t y0, std::int64_t y1) const {
    const std::int64_t reach = (c.r - 1) * c.dilation_h, first = y0 + c.pad_h - reach;
    return {first <= 0 ? 0 : std::min(first / c.stride_h, c.p),
            std::clamp<std::int64_t>((y1 - 1 + c.pad_h) / c.stride_h + 1, 0, c.p)};
  }

  /// sums [q, padded] = what pixels of d_output give to row y of d_input, of which `from` are those from row `p0` on.
  /// Says whether there are any.
  bool multiply_row(std::int64_t y, std::int64_t p0, const float* from, float* sums) const {
    const auto residue = static_cast<std::size_t>(y % c.stride_h);
    const std::int64_t i = y / c.stride_h;
    const Gather& gather = plan.gathers[residue];
    const auto [first, end] = gather.rows.taps_inside(i, i);
    bool begun = false;
    for (const DepthSlice& slice : gather.slices) {
      const std::int64_t tap0 = std::max(first, slice.tap_row0), tap1 = std::min(end, slice.tap_row1);
      if (tap0 >= tap1) continue;
      std::array<Run, max_depth> terms;
      for (std::int64_t t = tap0; t < tap1; ++t)
        terms[static_cast<std::size_t>(t - tap0)] = {
            (i + gather.rows.offset[static_cast<std::size_t>(t)] - p0) * c.q * c.k + slice.channel, slice.channels};
      for (std::int64_t col = 0; col < plan.padded; col += tile_width) {
        const std::int64_t width = panel_width(col);
        multiply<false, Absent::none>(c.q, width, {terms.data(), static_cast<std::size_t>(tap1 - tap0)}, from, c.k,
                                      panel(residue, slice, col) + (tap0 - slice.tap_row0) * slice.channels * width,
                                      width, begun ? Start{sums + col, plan.padded} : Start{}, sums + col, plan.padded);
      }
      begun = true;
    }
    return begun;
  }

  /// lines [lines, pitch] += sums under the taps of each pixel; the first one becomes the sum of all.
  void add_columns(const float* sums, float* lines) const {
    std::int64_t line = 0;
    for (std::int64_t j = 0; j < c.q; ++j, sums += plan.padded, line = line + 1 == plan.lines ? 0 : line + 1) {
      const std::int64_t x = j * c.stride_w - c.pad_w;
      const std::int64_t first = std::max<std::int64_t>(-x, 0) * c.c, end = std::min(c.s, c.w - x) * c.c;
      if (first < end) add_to(sums + first, end - first, lines + line * plan.pitch + x * c.c + first);
    }
    for (std::int64_t i = 1; i < plan.lines; ++i) add_to(lines + i * plan.pitch, c.w * c.c, lines);
  }

  void operator()() const {
    pack_weight();
    const std::int64_t bands = (c.h + plan.band - 1) / plan.band, row = c.q * c.k, line = c.w * c.c;
    parallel_for(plan.threads, c.n * bands, [&](std::int64_t task, int thread) {
      float* const own = workspace + plan.shared + thread * plan.per_thread;
      float *const sums = own + plan.sums_at, *const lines = own + plan.lines_at;
      const std::int64_t n = task / bands, y0 = task % bands * plan.band, y1 = std::min(y0 + plan.band, c.h);
      const auto [p0, p1] = rows_read(y0, y1);
      const float* from = p0 < p1 ? d_output((n * c.p + p0) * row, (p1 - p0) * row, own) : own;
      for (std::int64_t y = y0; y < y1; ++y) {
        std::fill_n(lines, plan.lines * plan.pitch, 0.0f);
        if (multiply_row(y, p0, from, sums)) add_columns(sums, lines);
        d_input((n * c.h + y) * line, line, lines);
      }
    });
  }
};

constexpr auto run = [](const Col2im& plan, const Arguments& arguments) { Col2imRun(plan, arguments)(); };

}  // namespace
}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

Col2im::Col2im(const Convolution& convolution, Isa chosen, int team)
    : problem(convolution.problem),
      d_output(chosen, convolution.operands.inputs[0]),
      weight(chosen, convolution.operands.inputs[1]),
      d_input(chosen, convolution.operands.output),
      isa(chosen),
      threads(team) {
  const ConvProblem& c = problem;
  const TileShape tile = HALFTONE_PER_ISA(isa, tile_shape);
  run_length = c.s * c.c;
  padded = round_up(run_length, tile.lanes);
  std::int64_t depth = 0;
  for (std::int64_t row = 0; row < std::min<std::int64_t>(c.stride_h, c.h); ++row) {
    Gather& gather = gathers.emplace_back(gradient_gather(c, row, 0));
    gather.cols = {.in = c.q, .out = c.q, .offset = {0}, .tap = {0}};
    gather.cut_slices(tile.max_depth, true);
    bases.push_back(depth);
    depth += gather.depth();
  }
  constexpr std::int64_t band_pixels = 256, cached = 8192;  // the latter in numbers of d_output
  const std::int64_t reach = (c.r - 1) * c.dilation_h, band_cached = cached / (c.q * c.k) * c.stride_h - reach;
  band = std::min(c.h, std::max<std::int64_t>({band_pixels / c.w, 2 * reach, band_cached, c.stride_h}));
  most_rows = std::min(c.p, (band + reach) / c.stride_h + 2);
  lines = c.c % tile.lanes == 0 ? 1 : std::min((c.s + c.stride_w - 1) / c.stride_w, c.q);
  pitch = round_up(c.w * c.c + tile.lanes, tile.line);
  shared = round_up(depth * padded, tile.line);
  sums_at = d_output.f32 ? 0 : round_up(most_rows * c.q * c.k, tile.line);
  lines_at = round_up(sums_at + c.q * padded + tile.line, tile.line);
  per_thread = lines_at + lines * pitch;
}

void Col2im::run(const Arguments& arguments) const { HALFTONE_PER_ISA(isa, run)(*this, arguments); }

}  // namespace halftone::cpu
#endif

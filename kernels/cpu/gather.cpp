#include "kernels/cpu/gather.hpp"

#include <algorithm>

namespace halftone::cpu {
namespace {

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

GatherAxis forward_axis(std::int64_t in, std::int64_t out, std::int64_t taps, int stride, int pad, int dilation) {
  GatherAxis axis{.in = in, .out = out, .step = stride};
  for (std::int64_t t = 0; t < taps; ++t) {
    axis.tap.push_back(t);
    axis.offset.push_back(t * dilation - pad);
  }
  return axis;
}

/// Input position `first` + i * stride meets tap t in output position (first + i * stride + pad - t * dilation) /
/// stride.
GatherAxis gradient_axis(std::int64_t in, std::int64_t out, std::int64_t taps, int stride, int pad, int dilation,
                         std::int64_t first) {
  GatherAxis axis{.in = out, .out = divide_up(in - first, stride), .step = 1};
  for (std::int64_t t = taps - 1; t >= 0; --t) {
    const std::int64_t distance = first + pad - t * dilation;
    if (distance % stride != 0) continue;
    axis.tap.push_back(t);
    axis.offset.push_back(distance / stride);
  }
  return axis;
}

/// Taps [t0, t1) need this many input positions for `out` outputs.
std::int64_t extent(const GatherAxis& axis, std::int64_t t0, std::int64_t t1, std::int64_t out) {
  return (out - 1) * axis.step + axis.offset[t1 - 1] - axis.offset[t0] + 1;
}

/// In memory whose rows are `pitch` apart and whose pixels are `pixel`.
std::vector<Run> find_runs(const Gather& gather, const DepthSlice& slice, std::int64_t pitch, std::int64_t pixel) {
  std::vector<Run> runs;
  for (std::int64_t t = slice.tap_row0; t < slice.tap_row1; ++t) {
    const std::int64_t row = (gather.rows.offset[t] - gather.rows.offset[slice.tap_row0]) * pitch;
    for (std::int64_t u = slice.tap_col0; u < slice.tap_col1; ++u) {
      const std::int64_t offset = row + (gather.cols.offset[u] - gather.cols.offset[slice.tap_col0]) * pixel;
      if (!runs.empty() && runs.back().offset + runs.back().length == offset) {
        runs.back().length += slice.channels;
      } else {
        runs.push_back({offset, slice.channels});
      }
    }
  }
  return runs;
}

void drop_padding_taps_of(GatherAxis& axis) {
  const auto finds_input = [&](std::int64_t offset) {
    std::int64_t i = offset < 0 ? divide_up(-offset, axis.step) : 0;
    return i < axis.out && i * axis.step + offset < axis.in;
  };
  GatherAxis kept{.in = axis.in, .out = axis.out, .step = axis.step};
  for (std::size_t t = 0; t < axis.tap.size(); ++t)
    if (finds_input(axis.offset[t])) kept.offset.push_back(axis.offset[t]), kept.tap.push_back(axis.tap[t]);
  axis = std::move(kept);
}

/// Channels of a slice: all, or a number that keeps vectors whole.
std::int64_t slice_channels(std::int64_t channels, std::int64_t most) {
  if (channels <= most) return channels;
  return most >= 16 ? most / 16 * 16 : most >= 8 ? 8 : most;
}

}  // namespace

bool GatherAxis::leaves_input() const {
  return taps() != 0 && (offset.front() < 0 || (out - 1) * step + offset.back() >= in);
}

std::pair<std::int64_t, std::int64_t> GatherAxis::taps_inside(std::int64_t i0, std::int64_t i1) const {
  std::int64_t first = 0, end = taps();
  while (first < end && i1 * step + offset[static_cast<std::size_t>(first)] < 0) ++first;
  while (first < end && i0 * step + offset[static_cast<std::size_t>(end - 1)] >= in) --end;
  return {first, end};
}

Block Blocks::operator[](std::int64_t index) const {
  const std::int64_t col = index % col_parts, row = index / col_parts % row_parts,
                     image = index / col_parts / row_parts;
  const auto cut = [&](std::int64_t extent, std::int64_t i, std::int64_t parts) {
    return step > 0 ? std::min(extent, step * i) : extent * i / parts;
  };
  return {images * image / image_parts,  images * (image + 1) / image_parts, cut(rows, row, row_parts),
          cut(rows, row + 1, row_parts), cut(cols, col, col_parts),          cut(cols, col + 1, col_parts)};
}

Block Blocks::largest() const {
  const auto most = [&](std::int64_t extent, std::int64_t parts) {
    return step > 0 ? std::min(extent, step) : divide_up(extent, parts);
  };
  return {0, divide_up(images, image_parts), 0, most(rows, row_parts), 0, most(cols, col_parts)};
}

Blocks cut_blocks(std::int64_t images, std::int64_t rows, std::int64_t cols, std::int64_t pixels,
                  std::int64_t max_images) {
  Blocks blocks{.images = images, .rows = rows, .cols = cols};
  blocks.col_parts = divide_up(cols, pixels + pixels / 4);
  const std::int64_t some_rows = blocks.col_parts > 1 ? 1 : std::max<std::int64_t>(1, (pixels + cols / 2) / cols);
  blocks.row_parts = divide_up(rows, some_rows);
  const std::int64_t all = rows * cols;
  const std::int64_t some_images =
      blocks.row_parts > 1 ? 1 : std::clamp<std::int64_t>((pixels + all / 2) / all, 1, max_images);
  blocks.image_parts = divide_up(images, some_images);
  return blocks;
}

Blocks cut_squares(std::int64_t images, std::int64_t rows, std::int64_t cols, std::int64_t side) {
  return {images, rows, cols, images, divide_up(rows, side), divide_up(cols, side), side};
}

std::int64_t Gather::slab_floats() const {
  std::int64_t most = 0;
  for (const DepthSlice& slice : slices) most = std::max(most, slice.slab_floats);
  return most;
}

void Gather::drop_padding_taps() {
  drop_padding_taps_of(rows);
  drop_padding_taps_of(cols);
}

void Gather::cut_slices(std::int64_t max_depth, bool whole_channels) {
  slices.clear();
  if (depth() == 0) return;
  const std::int64_t room = whole_channels ? std::max<std::int64_t>(1, max_depth / group_channels()) : max_depth;
  const std::int64_t col_taps = std::min(cols.taps(), room);
  const std::int64_t row_taps = std::clamp<std::int64_t>(room / col_taps, 1, rows.taps());
  const std::int64_t most = slice_channels(group_channels(), max_depth / (row_taps * col_taps));
  const Block largest = blocks.largest();
  std::int64_t base = 0;
  for (std::int64_t channel = 0; channel < group_channels(); channel += most) {
    for (std::int64_t t = 0; t < rows.taps(); t += row_taps) {
      for (std::int64_t u = 0; u < cols.taps(); u += col_taps) {
        DepthSlice slice{.channel = channel,
                         .channels = std::min(most, group_channels() - channel),
                         .tap_row0 = t,
                         .tap_row1 = std::min(t + row_taps, rows.taps()),
                         .tap_col0 = u,
                         .tap_col1 = std::min(u + col_taps, cols.taps()),
                         .base = base};
        slice.depth = (slice.tap_row1 - t) * (slice.tap_col1 - u) * slice.channels;
        slice.pitch = extent(cols, u, slice.tap_col1, largest.cols()) * slice.channels;
        slice.slab_floats = largest.images() * extent(rows, t, slice.tap_row1, largest.rows()) * slice.pitch;
        slice.runs = find_runs(*this, slice, slice.pitch, slice.channels);
        slice.tensor_runs = find_runs(*this, slice, cols.in * this->channels, this->channels);
        for (const Run& run : slice.runs) slice.longest_run = std::max(slice.longest_run, run.length);
        slice.whole = {0, slice.depth};
        base += slice.depth;
        slices.push_back(std::move(slice));
      }
    }
  }
}

std::optional<Planes> cut_planes(const Gather& gather, const TileShape& tile) {
  constexpr std::int64_t least_pixels = 96, most_pixels = 1024, most_floats = 8192;
  const GatherAxis &rows = gather.rows, &cols = gather.cols;
  if (gather.groups > 1 || rows.step > 1 || cols.step > 1 || cols.taps() * gather.channels > tile.max_depth ||
      rows.taps() * cols.taps() <= 3 || 2 * cols.out <= cols.offset.back() - cols.offset.front())
    return std::nullopt;
  Planes planes{.blocks = cut_blocks(gather.images, rows.out, cols.out,
                                     std::clamp(most_floats / gather.channels, least_pixels, most_pixels), 1)};
  const Block largest = planes.blocks.largest();
  planes.pitch = largest.cols() + cols.offset.back() - cols.offset.front();
  planes.plane = (largest.rows() + rows.offset.back() - rows.offset.front()) * planes.pitch;
  for (const std::int64_t y : rows.offset)
    for (const std::int64_t x : cols.offset)
      for (std::int64_t c = 0; c < gather.channels; ++c)
        planes.offsets.push_back(c * planes.plane + (y - rows.offset.front()) * planes.pitch + x - cols.offset.front());
  return planes;
}

Gather forward_gather(const ConvProblem& c) {
  return {.images = c.n,
          .channels = c.c,
          .groups = c.groups,
          .rows = forward_axis(c.h, c.p, c.r, c.stride_h, c.pad_h, c.dilation_h),
          .cols = forward_axis(c.w, c.q, c.s, c.stride_w, c.pad_w, c.dilation_w)};
}

Gather gradient_gather(const ConvProblem& c, std::int64_t row0, std::int64_t col0) {
  return {.images = c.n,
          .channels = c.k,
          .groups = c.groups,
          .rows = gradient_axis(c.h, c.p, c.r, c.stride_h, c.pad_h, c.dilation_h, row0),
          .cols = gradient_axis(c.w, c.q, c.s, c.stride_w, c.pad_w, c.dilation_w, col0)};
}

}  // namespace halftone::cpu

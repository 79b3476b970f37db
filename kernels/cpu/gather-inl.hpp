// Included once per instruction set, inside HWY_NAMESPACE files only; hence no #pragma once.
#if defined(HALFTONE_GATHER_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef HALFTONE_GATHER_INL
#undef HALFTONE_GATHER_INL
#else
#define HALFTONE_GATHER_INL
#endif

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

#include "kernels/cpu/gather.hpp"
#include "kernels/cpu/microkernel-inl.hpp"
#include "kernels/cpu/storage.hpp"

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

/// Makes what looks absent a NaN like others.
inline void canonicalize_nan(float* first, float* last) {
  std::replace_if(
      first, last, [](float x) { return x != x; }, std::numeric_limits<float>::quiet_NaN());
}

/// The pixels of a block in lines of equal distance: what pixel l of line (i, j) gathers are runs from data + i * image
/// + j * row + l * pixel on.
struct Lines {
  const float* data;
  std::span<const Run> runs;
  std::int64_t images, rows, pixels, image, row, pixel;

  /// Makes one line of lines that follow one another.
  void join() {
    if (rows > 1 && row == pixels * pixel) pixels *= rows, rows = 1;
    if (images > 1 && rows == 1 && image == pixels * pixel) pixels *= images, images = 1;
  }
  std::int64_t count() const { return images * rows; }
  std::int64_t offset(std::int64_t line) const { return line / rows * image + line % rows * row; }
};

/// Where the tensor itself is a block's slab: f32 without padding. Its last vectors may reach `beyond` numbers behind
/// what is gathered.
inline bool is_slab(const Gather& gather, const DepthSlice& slice, const Block& block, const Access& access,
                    std::int64_t beyond) {
  if (!access.f32 || gather.leaves_input() || gather.cols.step * gather.channels % 1024 == 0)
    return false;  // addresses 4 KB apart collide
  const std::int64_t y = (block.row1 - 1) * gather.rows.step + gather.rows.offset[slice.tap_row1 - 1];
  const std::int64_t x = (block.col1 - 1) * gather.cols.step + gather.cols.offset[slice.tap_col1 - 1];
  const std::int64_t pixel = ((block.image1 - 1) * gather.rows.in + y) * gather.cols.in + x;
  return (pixel + 1) * gather.channels + beyond <= access.count;
}

inline Lines lines_of_tensor(const Gather& gather, const DepthSlice& slice, std::int64_t group, const Block& block,
                             const Input& input) {
  const GatherAxis &rows = gather.rows, &cols = gather.cols;
  const std::int64_t row = cols.in * gather.channels, y = block.row0 * rows.step + rows.offset[slice.tap_row0],
                     x = block.col0 * cols.step + cols.offset[slice.tap_col0];
  const std::int64_t first =
      (block.image0 * rows.in + y) * row + x * gather.channels + group * gather.group_channels() + slice.channel;
  Lines lines{.data = input(first, 0, nullptr),
              .runs = slice.tensor_runs,
              .images = block.images(),
              .rows = block.rows(),
              .pixels = block.cols(),
              .image = rows.in * row,
              .row = rows.step * row,
              .pixel = cols.step * gather.channels};
  lines.join();
  return lines;
}

inline Lines lines_of_slab(const Gather& gather, const DepthSlice& slice, const Block& block, const float* slab) {
  const GatherAxis& rows = gather.rows;
  const std::int64_t slab_rows =
      (block.rows() - 1) * rows.step + rows.offset[slice.tap_row1 - 1] - rows.offset[slice.tap_row0] + 1;
  Lines lines{.data = slab,
              .runs = slice.runs,
              .images = block.images(),
              .rows = block.rows(),
              .pixels = block.cols(),
              .image = slab_rows * slice.pitch,
              .row = rows.step * slice.pitch,
              .pixel = gather.cols.step * slice.channels};
  lines.join();
  return lines;
}

/// slab [images, rows, cols, channels of the slice] = what `block` needs of the input; outside of it zero or, if
/// `mark_padding`, absent.
inline void fill_slab(const Gather& gather, const DepthSlice& slice, std::int64_t group, const Block& block,
                      const Input& input, bool mark_padding, float* slab) {
  const float padding = mark_padding ? bit_cast<float>(absent_bits) : 0.0f;
  const GatherAxis &rows = gather.rows, &cols = gather.cols;
  const std::int64_t y0 = block.row0 * rows.step + rows.offset[slice.tap_row0];
  const std::int64_t y1 = (block.row1 - 1) * rows.step + rows.offset[slice.tap_row1 - 1] + 1;
  const std::int64_t x0 = block.col0 * cols.step + cols.offset[slice.tap_col0];
  const std::int64_t x1 = (block.col1 - 1) * cols.step + cols.offset[slice.tap_col1 - 1] + 1;
  const std::int64_t in0 = std::clamp<std::int64_t>(x0, 0, cols.in), in1 = std::clamp<std::int64_t>(x1, in0, cols.in);
  const std::int64_t channels = slice.channels, channel = group * gather.group_channels() + slice.channel;
  const std::int64_t row_step = slice.tap_row1 - slice.tap_row0 == 1 ? rows.step : 1;  // no tap reads between
  const std::int64_t col_step = slice.tap_col1 - slice.tap_col0 == 1 ? cols.step : 1;
  const auto copy = [&](std::int64_t from, std::int64_t count, float* to) {
    input.copy(from, count, to);
    if (mark_padding) canonicalize_nan(to, to + count);
  };
  const bool side_by_side = channels == gather.channels && row_step * col_step == 1 && x0 == 0 && x1 == cols.in &&
                            slice.pitch == cols.in * channels;
  for (std::int64_t image = block.image0; image < block.image1; ++image) {
    for (std::int64_t y = y0; y < y1; ++y, slab += slice.pitch) {
      if (side_by_side && y >= 0 && y < rows.in) {
        const std::int64_t more = std::min(y1, rows.in) - y - 1, first = (image * rows.in + y) * slice.pitch;
        copy(first, (more + 1) * slice.pitch, slab);
        y += more, slab += more * slice.pitch;
        continue;
      }
      if ((y - y0) % row_step != 0) continue;
      if (y < 0 || y >= rows.in || in0 == in1) {
        std::fill_n(slab, (x1 - x0) * channels, padding);
        continue;
      }
      float* inside = slab + (in0 - x0) * channels;
      float* right = inside + (in1 - in0) * channels;
      const std::int64_t from = ((image * rows.in + y) * cols.in + in0) * gather.channels + channel;
      std::fill(slab, inside, padding);
      if (channels == gather.channels && col_step == 1) {
        copy(from, (in1 - in0) * channels, inside);
      } else {
        for (std::int64_t x = round_up(in0 - x0, col_step) - (in0 - x0); x < in1 - in0; x += col_step)
          copy(from + x * gather.channels, channels, inside + x * channels);
      }
      std::fill(right, slab + (x1 - x0) * channels, padding);
    }
  }
}

/// Whole vectors are copied: what they overshoot is written again by the next run or lies behind the row.
template <class Vector>
void pack_lines_with(Vector v, const Lines& lines, float* packed) {
  constexpr std::int64_t width = hn::MaxLanes(Vector());
  for (std::int64_t line = 0; line < lines.count(); ++line, packed += lines.pixels * packed_stride) {
    std::int64_t at = 0;
    for (const Run run : lines.runs) {
      const float* from = lines.data + lines.offset(line) + run.offset;
      float* to = packed + at;
      for (std::int64_t j = 0; j < lines.pixels; ++j, from += lines.pixel, to += packed_stride) {
        hn::StoreU(hn::LoadU(v, from), v, to);
        for (std::int64_t x = width; x < run.length; x += width) hn::StoreU(hn::LoadU(v, from + x), v, to + x);
      }
      at += run.length;
    }
  }
}

/// packed [pixels, packed_stride] = the gathered numbers of each pixel of lines in a slab.
inline void pack_lines(const DepthSlice& slice, const Lines& lines, float* packed) {
  if (slice.longest_run <= 8) {
    pack_lines_with(hn::CappedTag<float, 8>(), lines, packed);
  } else {
    pack_lines_with(Vectors(), lines, packed);
  }
}

/// Copies whole vectors, of which the last overlaps the one before, unless there are fewer numbers than one has.
template <class Vector>
HWY_INLINE bool copy_with(Vector v, const std::uint16_t* from, std::int64_t count, std::uint16_t* to) {
  constexpr std::int64_t width = hn::MaxLanes(Vector());
  if (count < width) return false;
  for (std::int64_t i = 0; i + width < count; i += width) hn::StoreU(hn::LoadU(v, from + i), v, to + i);
  hn::StoreU(hn::LoadU(v, from + count - width), v, to + count - width);
  return true;
}

/// As std::copy_n, but never a call: most runs are short.
HWY_INLINE void copy_codes(const std::uint16_t* from, std::int64_t count, std::uint16_t* to) {
  if (copy_with(hn::ScalableTag<std::uint16_t>(), from, count, to)) return;
  if (copy_with(hn::CappedTag<std::uint16_t, 8>(), from, count, to)) return;
  if (copy_with(hn::CappedTag<std::uint16_t, 4>(), from, count, to)) return;
  for (std::int64_t i = 0; i < 3; ++i)
    if (i < count) to[i] = from[i];
}

/// Reads what a pixel gathers of a slice as it is stored, in 16 bits, where there are no groups.
class CodeGather {
 public:
  CodeGather(const Gather& gather, const DepthSlice& slice, const Input& input)
      : rows_(gather.rows), cols_(gather.cols), slice_(slice), channels_(gather.channels), from_(input.codes()) {
    const std::int64_t last = slice.tap_col1 - 1;
    const bool side_by_side = cols_.offset[last] - cols_.offset[slice.tap_col0] == last - slice.tap_col0;
    if (side_by_side && slice.channels == channels_) taps_ = slice.tap_col1 - slice.tap_col0;
  }

  /// to [slice.depth], zero in the padding.
  void operator()(std::int64_t image, std::int64_t row, std::int64_t col, std::uint16_t* to) const {
    const std::int64_t count = slice_.channels;
    for (std::int64_t t = slice_.tap_row0; t < slice_.tap_row1; ++t) {
      const std::int64_t y = row * rows_.step + rows_.offset[t];
      const bool inside = y >= 0 && y < rows_.in;
      for (std::int64_t u = slice_.tap_col0; u < slice_.tap_col1; u += taps_, to += taps_ * count) {
        const std::int64_t x = col * cols_.step + cols_.offset[u];
        const std::int64_t first = inside ? std::clamp<std::int64_t>(-x, 0, taps_) : taps_;
        const std::int64_t end = inside ? std::clamp<std::int64_t>(cols_.in - x, first, taps_) : taps_;
        const std::int64_t from = ((image * rows_.in + y) * cols_.in + x) * channels_ + slice_.channel;
        std::fill_n(to, first * count, std::uint16_t{0});
        copy_codes(from_ + from + first * count, (end - first) * count, to + first * count);
        std::fill_n(to + end * count, (taps_ - end) * count, std::uint16_t{0});
      }
    }
  }

 private:
  const GatherAxis &rows_, &cols_;
  const DepthSlice& slice_;
  std::int64_t channels_, taps_ = 1;  ///< taps that read numbers side by side
  const std::uint16_t* from_;
};

inline bool all_finite(const float* x, std::int64_t count) {
  const Vectors v;
  auto zero = hn::Zero(v);  // x - x is zero or NaN
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto some = hn::LoadU(v, x + i);
    zero = hn::Add(zero, hn::Sub(some, some));
  }
  float last = 0;
  for (; i < count; ++i) last += x[i] - x[i];
  return last == 0 && hn::AllTrue(v, hn::Eq(zero, hn::Zero(v)));
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

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
  for (std::int64_t image = block.image0; image < block.image1; ++image) {
    for (std::int64_t y = y0; y < y1; ++y, slab += slice.pitch) {
      if (y < 0 || y >= rows.in || in0 == in1) {
        std::fill_n(slab, (x1 - x0) * channels, padding);
        continue;
      }
      float* inside = slab + (in0 - x0) * channels;
      float* right = inside + (in1 - in0) * channels;
      const std::int64_t from = ((image * rows.in + y) * cols.in + in0) * gather.channels + channel;
      std::fill(slab, inside, padding);
      if (channels == gather.channels) {
        input.copy(from, (in1 - in0) * channels, inside);
      } else {
        for (std::int64_t x = 0; x < in1 - in0; ++x)
          input.copy(from + x * gather.channels, channels, inside + x * channels);
      }
      if (mark_padding) canonicalize_nan(inside, right);
      std::fill(right, slab + (x1 - x0) * channels, padding);
    }
  }
}

/// Whole vectors are copied: what they overshoot is written again by the next run or lies behind the row.
template <class Vector>
void pack_rows_with(Vector v, const Gather& gather, const DepthSlice& slice, const Block& block, const float* slab,
                    float* packed) {
  constexpr std::int64_t width = hn::MaxLanes(Vector());
  const GatherAxis& rows = gather.rows;
  const std::int64_t slab_rows =
      (block.rows() - 1) * rows.step + rows.offset[slice.tap_row1 - 1] - rows.offset[slice.tap_row0] + 1;
  const std::int64_t step = gather.cols.step * slice.channels;
  for (std::int64_t image = 0; image < block.images(); ++image) {
    for (std::int64_t i = 0; i < block.rows(); ++i) {
      const float* row = slab + (image * slab_rows + i * rows.step) * slice.pitch;
      std::int64_t at = 0;
      for (const Run run : slice.runs) {
        const float* from = row + run.offset;
        float* to = packed + at;
        for (std::int64_t j = 0; j < block.cols(); ++j, from += step, to += packed_stride) {
          hn::StoreU(hn::LoadU(v, from), v, to);
          for (std::int64_t x = width; x < run.length; x += width) hn::StoreU(hn::LoadU(v, from + x), v, to + x);
        }
        at += run.length;
      }
      packed += block.cols() * packed_stride;
    }
  }
}

/// packed [pixels, packed_stride] = the gathered numbers of each pixel.
inline void pack_rows(const Gather& gather, const DepthSlice& slice, const Block& block, const float* slab,
                      float* packed) {
  if (slice.longest_run <= 8) {
    pack_rows_with(hn::CappedTag<float, 8>(), gather, slice, block, slab, packed);
  } else {
    pack_rows_with(Vectors(), gather, slice, block, slab, packed);
  }
}

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

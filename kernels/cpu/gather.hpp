#pragma once
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/common/convolution.hpp"

namespace halftone::cpu {

constexpr std::int64_t round_up(std::int64_t x, std::int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

/// What a plan needs to know of an instruction set's microkernels; all in floats.
struct TileShape {
  std::int64_t lanes, width, packed_stride, max_depth, planar_height;
  std::int64_t (*planar_width)(int height);
  static constexpr std::int64_t line = 16;  ///< of the cache
};

// What the engine multiplies: each output pixel gathers, tap by tap, the channels of some input pixels, and the
// gathered numbers of a block of pixels are a matrix [pixels, taps x channels]. Forward pass and weight gradient gather
// from x; the data gradient gathers from d_output, once for every residue of the position modulo the stride.

/// One spatial axis: output position i reads input position i * step + offset[t]; the offsets ascend.
struct GatherAxis {
  std::int64_t in = 1, out = 1, step = 1;
  std::vector<std::int64_t> offset = {}, tap = {};  ///< tap[t] is the place in the weight

  std::int64_t taps() const { return std::ssize(tap); }
  bool leaves_input() const;  ///< whether a tap of some output position falls into padding
  /// The taps [first, end) without those that no output position of [i0, i1] finds within the input.
  std::pair<std::int64_t, std::int64_t> taps_inside(std::int64_t i0, std::int64_t i1) const;
};

/// A rectangle of output pixels.
struct Block {
  std::int64_t image0, image1, row0, row1, col0, col1;
  std::int64_t images() const { return image1 - image0; }
  std::int64_t rows() const { return row1 - row0; }
  std::int64_t cols() const { return col1 - col0; }
  std::int64_t pixels() const { return images() * rows() * cols(); }
};

/// How the output pixels are cut into blocks.
struct Blocks {
  std::int64_t images = 1, rows = 1, cols = 1, image_parts = 1, row_parts = 1, col_parts = 1;
  std::int64_t step = 0;  ///< rows and columns are cut at its multiples, where it is not 0

  std::int64_t count() const { return image_parts * row_parts * col_parts; }
  Block operator[](std::int64_t index) const;
  Block largest() const;
};

/// Blocks of about `pixels`: parts of a row, rows, or whole images, never more than `max_images` of them.
Blocks cut_blocks(std::int64_t images, std::int64_t rows, std::int64_t cols, std::int64_t pixels,
                  std::int64_t max_images);

/// Squares of `side` pixels, smaller at the lower and right end.
Blocks cut_squares(std::int64_t images, std::int64_t rows, std::int64_t cols, std::int64_t side);

/// Numbers that lie side by side in a slab and in a gathered row.
struct Run {
  std::int64_t offset, length;
};

/// A part of the reduction: some channels of a group under some taps. The input that a block needs of it is laid out
/// with its zero halo as a slab [images, rows, cols, channels] in f32.
struct DepthSlice {
  std::int64_t channel, channels, tap_row0, tap_row1, tap_col0, tap_col1;
  std::int64_t base;                  ///< depth of the slices before
  std::int64_t depth = 0;             ///< numbers gathered for a pixel, in the order [tap row, tap column, channel]
  std::int64_t pitch = 0;             ///< floats from one slab row to the next
  std::int64_t slab_floats = 0;       ///< for the largest block
  std::vector<Run> runs = {};         ///< from a pixel's place in the slab
  std::vector<Run> tensor_runs = {};  ///< from its place in the tensor
  std::int64_t longest_run = 0;
  Run whole = {};  ///< all of them packed
};

struct Gather {
  std::int64_t images = 1, channels = 1, groups = 1;  ///< of the tensor that is read
  GatherAxis rows, cols;
  Blocks blocks = {};
  std::vector<DepthSlice> slices = {};  ///< of one group; none where there are no taps

  std::int64_t group_channels() const { return channels / groups; }
  std::int64_t depth() const { return rows.taps() * cols.taps() * group_channels(); }
  bool leaves_input() const { return rows.leaves_input() || cols.leaves_input(); }
  std::int64_t slab_floats() const;

  /// Leaves out taps that find no input from any position.
  void drop_padding_taps();

  /// Cuts the reduction into slices of at most `max_depth`, for the blocks as they are: by channels where all taps of a
  /// channel fit, else by taps. With `whole_channels` by taps alone, if all channels of a tap fit.
  void cut_slices(std::int64_t max_depth, bool whole_channels = false);
};

/// Blocks of one image each whose pixels lie in the vector lanes: of a slab [channels, rows, pitch] a tap reads the
/// numbers at an offset from their pixels.
struct Planes {
  Blocks blocks = {};
  std::int64_t pitch = 0,
               plane = 0;  ///< floats of a row, with the halo between this and the next one, and of a channel
  std::vector<std::int64_t> offsets = {};  ///< in the order [tap row, tap column, channel]
};
/// None where strides or groups forbid them and where few taps or much halo make them slow.
std::optional<Planes> cut_planes(const Gather& gather, const TileShape& tile);

Gather forward_gather(const ConvProblem& problem);

/// For the data gradient at input positions row0 + i * stride_h, col0 + j * stride_w.
Gather gradient_gather(const ConvProblem& problem, std::int64_t row0, std::int64_t col0);

}  // namespace halftone::cpu

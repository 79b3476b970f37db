#pragma once
#include "halftone/graph/graph.hpp"
#include "halftone/ops/conv2d.hpp"

namespace halftone {

/// How many rows and columns an image gets at each side, of zeros; a negative number takes as many away.
struct Margins {
  int top = 0, bottom = 0, left = 0, right = 0;
};

/// [n, h, w, c] with margins of zeros, or cropped. Throws Error where nothing of the image is left.
Value pad2d(Value x, const Margins& margins);

enum class Interpolation { nearest, bilinear };

/// h and w times a whole factor of at least 1: each pixel again and again, or straight lines between pixels' centers
/// that end at the outermost ones (PyTorch's `align_corners=False`).
Value upsample2d(Value x, Extent factor, Interpolation interpolation = Interpolation::nearest);

/// Each channel of x [n, h, w, c] times a factor of its image's, [n, 1, 1, c]: squeeze-and-excitation.
Value scale_channels(Value x, Value factors);

/// x [n, h, w, c] plus a number for each channel, [1, 1, 1, c].
Value add_channels(Value x, Value numbers);

struct ConvTranspose2dOptions {
  Extent stride = 1, padding = 0, output_padding = 0, dilation = 1;  ///< output_padding: below stride or dilation
  int groups = 1;
  bool bias = true;
  std::string name = {};                                  ///< by default conv_transpose1, conv_transpose2, ...
  std::optional<Initializer> weight_init = std::nullopt;  ///< by default uniform within 1/sqrt(channels / groups r s)
};

/// What a convolution's gradient does to its output, with weights [c, r, s, channels / groups] of its own: [n, h, w, c]
/// to `channels` channels and (h - 1) stride - 2 padding + dilation (r - 1) + output_padding + 1 rows. Throws Error as
/// `conv2d`.
Value conv_transpose2d(Value x, int channels, Extent kernel, const ConvTranspose2dOptions& options = {});

/// Also its own gradient, with all margins negated.
struct Pad2d final : Op {
  Margins margins;
  explicit Pad2d(const Margins& the_margins) : margins(the_margins) {}
  std::string name() const override { return "pad2d"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// Along one axis: output i is (1 - share) of input `lower` and `share` of input `upper`.
struct Taps {
  std::int64_t lower, upper;
  float share;

  HALFTONE_HD float of(std::int64_t input) const {
    return (lower == input ? 1 - share : 0.0f) + (upper == input ? share : 0.0f);
  }
};

HALFTONE_HD Taps taps_of(std::int64_t i, int factor, std::int64_t extent, Interpolation interpolation) {
  if (interpolation == Interpolation::nearest) return {i / factor, i / factor, 0};
  const float x = (static_cast<float>(i) + 0.5f) / static_cast<float>(factor) - 0.5f;
  if (x <= 0) return {0, 0, 0};
  const auto lower = static_cast<std::int64_t>(x);
  return {lower, lower + 1 < extent ? lower + 1 : lower, x - static_cast<float>(lower)};
}

struct Upsampling : Op {
  Extent factor;
  Interpolation interpolation;
  Upsampling(Extent the_factor, Interpolation the_interpolation)
      : factor(the_factor), interpolation(the_interpolation) {}
};

struct Upsample2d final : Upsampling {
  using Upsampling::Upsampling;
  std::string name() const override { return "upsample2d"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// d_y -> d_x.
struct Upsample2dGradient final : Upsampling {
  using Upsampling::Upsampling;
  std::string name() const override { return "upsample2d_gradient"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

struct ScaleChannels final : Op {
  std::string name() const override { return "scale_channels"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [d_y, x] -> d_factors.
struct ScaleChannelsGradient final : Op {
  std::string name() const override { return "scale_channels_gradient"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

struct AddChannels final : Op {
  std::string name() const override { return "add_channels"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

/// [x, weight] -> y of extent (h, w), which the convolution with these attributes takes to x's.
struct ConvTranspose2d final : Op {
  ConvAttributes conv;
  Extent output_padding;
  ConvTranspose2d(ConvAttributes the_conv, Extent the_output_padding)
      : conv(the_conv), output_padding(the_output_padding) {}
  std::string name() const override { return "conv_transpose2d"; }
  Arity arity() const override { return 2; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
  double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const override;
  std::vector<Value> gradient(const GradientRequest& request) const override;
};

}  // namespace halftone

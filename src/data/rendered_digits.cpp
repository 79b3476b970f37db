#include "halftone/data/rendered_digits.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>

#include "halftone/numeric/philox.hpp"
#include "src/data/glyphs.hpp"

namespace halftone {
namespace {

// Only +, -, *, / and sqrt on floats: every machine draws the same bytes.

constexpr int side = 28, area = side * side;

struct Point {
  float x, y;
};

Point operator+(Point a, Point b) { return {a.x + b.x, a.y + b.y}; }
Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
Point operator*(float s, Point a) { return {s * a.x, s * a.y}; }
float dot(Point a, Point b) { return a.x * b.x + a.y * b.y; }

/// The random numbers of one image, in the order in which they are asked for.
class Draw {
 public:
  Draw(std::uint64_t seed, Split split, std::int64_t image)
      : seed_(seed),
        image_(static_cast<std::uint64_t>(image)),
        stream_(split == Split::train ? 0xda7a0003 : 0xda7a0004) {}

  std::uint32_t word() {
    if (count_ % 4 == 0) block_ = block_bits(seed_, image_, stream_, count_ / 4);
    return block_[count_++ % 4];
  }
  int below(std::size_t n) { return static_cast<int>(std::uint64_t{word()} * n >> 32); }
  float between(float low, float high) { return low + (high - low) * (static_cast<float>(word() >> 8) * 0x1p-24f); }
  float around(float spread) { return between(-spread, spread); }

 private:
  std::uint64_t seed_, image_;
  std::uint32_t stream_, count_ = 0;
  std::array<std::uint32_t, 4> block_ = {};
};

/// Takes the unit box of a glyph, centre 0, to pixels: an affine map, then a smooth random displacement.
class Distortion {
 public:
  explicit Distortion(Draw& draw) {
    const float width = draw.between(14, 23), height = draw.between(17, 23), shear = draw.around(0.35f);
    const float tangent = draw.around(0.27f), cosine = 1 / std::sqrt(1 + tangent * tangent);
    x_ = cosine * Point{width, -height * tangent};
    y_ = cosine * Point{width * tangent, height};
    x_.y += shear * x_.x;
    y_.y += shear * y_.x;
    centre_ = {13.5f + draw.around(2), 13.5f + draw.around(2)};
    for (Point& p : grid_) p = {draw.around(2.2f), draw.around(2.2f)};
  }

  Point operator()(Point p) const {
    const Point affine = centre_ + Point{dot(x_, p), dot(y_, p)};
    return affine + displacement(affine);
  }

 private:
  static constexpr int knots = 5;

  Point displacement(Point p) const {
    const auto [column, u] = knot(p.x);
    const auto [row, v] = knot(p.y);
    const Point* cell = grid_.data() + row * knots + column;
    return (1 - v) * ((1 - u) * cell[0] + u * cell[1]) + v * ((1 - u) * cell[knots] + u * cell[knots + 1]);
  }

  /// The grid line left of a coordinate, and how far beyond it on a smooth step from 0 to 1.
  static std::pair<int, float> knot(float pixel) {
    const float t = std::clamp(pixel / (side - 1), 0.0f, 0.9999f) * (knots - 1);
    const int left = static_cast<int>(t);
    const float f = t - static_cast<float>(left);
    return {left, f * f * (3 - 2 * f)};
  }

  Point x_, y_, centre_;  // rows of the matrix, shift
  std::array<Point, knots * knots> grid_;
};

class Canvas {
 public:
  Canvas(float radius, float softness) : radius_(radius), softness_(softness) {}

  /// Inks every pixel near the line from `a` to `b`.
  void line(Point a, Point b) {
    const float reach = radius_ + softness_;
    const Point along = b - a;
    const float length2 = std::max(dot(along, along), 1e-6f);
    for (int y = first(std::min(a.y, b.y) - reach); y < last(std::max(a.y, b.y) + reach); ++y)
      for (int x = first(std::min(a.x, b.x) - reach); x < last(std::max(a.x, b.x) + reach); ++x) {
        const Point p = Point{static_cast<float>(x), static_cast<float>(y)} - a;
        const Point off = p - std::clamp(dot(p, along) / length2, 0.0f, 1.0f) * along;
        const float ink = (radius_ - std::sqrt(dot(off, off))) / softness_ + 0.5f;
        float& pixel = ink_[static_cast<std::size_t>(y) * side + static_cast<std::size_t>(x)];
        pixel = std::max(pixel, std::min(ink, 1.0f));
      }
  }

  /// Grey values with a triangular noise of up to `noise` either way.
  void develop(Draw& draw, float brightness, float noise, std::byte* to) const {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < ink_.size(); ++i, word >>= 16) {
      if (i % 2 == 0) word = draw.word();
      const float grain =
          static_cast<float>(static_cast<int>(word & 255) + static_cast<int>(word >> 8 & 255) - 255) / 255;
      const float grey = brightness * ink_[i] + noise * grain;
      to[i] = static_cast<std::byte>(std::clamp(grey, 0.0f, 1.0f) * 255 + 0.5f);
    }
  }

 private:
  static int first(float pixel) { return static_cast<int>(std::clamp(pixel, 0.0f, float{side})); }
  static int last(float pixel) { return static_cast<int>(std::clamp(pixel + 1, 0.0f, float{side})); }

  float radius_, softness_;
  std::array<float, area> ink_ = {};
};

/// Catmull-Rom through b and c.
Point between(Point a, Point b, Point c, Point d, float t) {
  const Point linear = c - a, square = 2.0f * a - 5.0f * b + 4.0f * c - d, cube = 3.0f * (b - c) + d - a;
  return b + 0.5f * t * (linear + t * (square + t * cube));
}

void draw_stroke(Canvas& canvas, const GlyphStroke& stroke, const Distortion& distort, Draw& draw) {
  constexpr int pieces = 6;
  std::vector<Point> p;
  for (const GlyphPoint& g : stroke)
    p.push_back({(g.x - 50 + draw.around(4)) / 100, (g.y - 50 + draw.around(4)) / 100});
  Point from = distort(p[0]);
  for (std::size_t i = 0; i + 1 < p.size(); ++i)
    for (int k = 1; k <= pieces; ++k) {
      const Point to = distort(
          between(p[i ? i - 1 : 0], p[i], p[i + 1], p[std::min(i + 2, p.size() - 1)], static_cast<float>(k) / pieces));
      canvas.line(from, to);
      from = to;
    }
}

/// Draws one digit to `to` and returns which.
int draw_digit(Draw draw, std::byte* to) {
  const int digit = draw.below(10);
  const std::vector<Glyph>& variants = glyphs(digit);
  const Glyph& glyph = variants[static_cast<std::size_t>(draw.below(variants.size()))];
  const Distortion distort(draw);
  Canvas canvas{draw.between(0.6f, 1.6f), draw.between(0.8f, 1.6f)};  // braces: drawn in this order
  for (const GlyphStroke& stroke : glyph) draw_stroke(canvas, stroke, distort, draw);
  const float brightness = draw.between(0.7f, 1.1f);
  canvas.develop(draw, brightness, draw.between(0, 0.25f), to);
  return digit;
}

}  // namespace

Dataset rendered_digits(Split split, std::int64_t count, std::uint64_t seed) {
  if (count < 1) fail(fmt::format("rendered_digits is asked for {} images", count));
  Dataset data{.name = "digits", .split = split, .image = {1, side, side, 1}, .synthetic = true};
  data.mean = {0.1176f};
  data.stddev = {0.2490f};
  data.pixels.resize(static_cast<std::size_t>(count) * data.image_bytes());
  data.labels.resize(static_cast<std::size_t>(count));
  const std::int64_t shares = std::clamp<std::int64_t>(std::thread::hardware_concurrency(), 1, count);
  std::vector<std::jthread> threads;
  for (std::int64_t share = 0; share < shares; ++share)
    threads.emplace_back([&, share] {
      for (std::int64_t i = count * share / shares; i < count * (share + 1) / shares; ++i)
        data.labels[static_cast<std::size_t>(i)] =
            draw_digit(Draw(seed, split, i), data.pixels.data() + static_cast<std::size_t>(i) * data.image_bytes());
    });
  threads.clear();
  return data;
}

}  // namespace halftone

#include "halftone/ops/spatial.hpp"
#include "tests/kernels/harness.hpp"

namespace halftone::test {
namespace {

std::size_t at(const Shape& s, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
  return static_cast<std::size_t>(((n * s.h + h) * s.w + w) * s.c + c);
}

/// Calls f(n, h, w, c) for all places of a tensor in their order.
template <class F>
void for_places(const Shape& s, const F& f) {
  for (std::int64_t n = 0; n < s.n; ++n)
    for (std::int64_t h = 0; h < s.h; ++h)
      for (std::int64_t w = 0; w < s.w; ++w)
        for (std::int64_t c = 0; c < s.c; ++c) f(n, h, w, c);
}

Doubles zeros(const Shape& shape) { return Doubles(static_cast<std::size_t>(shape.elements())); }

const std::vector<Shape> shapes = {{1, 1, 1, 1}, {2, 3, 5, 1}, {3, 4, 2, 7}, {1, 5, 3, 16}, {2, 2, 3, 33}};

TEST(Pad2dKernels, PadAndCrop) {
  for (const auto& storages : storage_choices)
    for (const Shape& x : {Shape{2, 4, 5, 3}, Shape{1, 3, 4, 17}})
      for (const Margins& m :
           {Margins{}, Margins{1, 2, 3, 4}, Margins{-1, 0, 0, -2}, Margins{0, -2, -3, 1}, Margins{2, -2, -1, -1}}) {
        const Shape y{x.n, x.h + m.top + m.bottom, x.w + m.left + m.right, x.c};
        check_kernels({Pad2d(m),
                       {x},
                       storages,
                       {random_integers(x.elements(), 1)},
                       [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                         Doubles result = zeros(y);
                         for_places(x, [&](auto n, auto h, auto w, auto c) {
                           const std::int64_t p = h + m.top, q = w + m.left;
                           if (p >= 0 && p < y.h && q >= 0 && q < y.w)
                             result[at(y, n, p, q, c)] = in[0][at(x, n, h, w, c)];
                         });
                         return {result};
                       }});
      }
}

/// What input j is of output i: its tent around its center, where the outermost centers stand for all beyond them.
double share(std::int64_t i, std::int64_t j, int factor, std::int64_t extent, Interpolation interpolation) {
  if (interpolation == Interpolation::nearest) return i / factor == j ? 1 : 0;
  const double place = (static_cast<double>(i) + 0.5) / factor, last = static_cast<double>(extent) - 0.5;
  return std::max(0.0, 1 - std::abs(std::clamp(place, 0.5, last) - (static_cast<double>(j) + 0.5)));
}

/// Calls f(element of x, of y, share of the one in the other) wherever there is any.
template <class F>
void for_shares(const Shape& x, const Shape& y, Extent factor, Interpolation way, const F& f) {
  for_places(y, [&](auto n, auto p, auto q, auto c) {
    for (std::int64_t h = 0; h < x.h; ++h)
      for (std::int64_t w = 0; w < x.w; ++w)
        if (const double part = share(p, h, factor.h, x.h, way) * share(q, w, factor.w, x.w, way); part > 0)
          f(at(x, n, h, w, c), at(y, n, p, q, c), part);
  });
}

void check_upsampling(const Shape& x, Extent factor, Interpolation way, const std::vector<Storage>& storages,
                      const std::vector<Bound>& bounds = {}) {
  const Shape y{x.n, x.h * factor.h, x.w * factor.w, x.c};
  check_kernels({Upsample2d(factor, way),
                 {x},
                 storages,
                 {random_integers(x.elements(), 1)},
                 [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                   Doubles result = zeros(y);
                   for_shares(x, y, factor, way, [&](auto i, auto j, double part) { result[j] += part * in[0][i]; });
                   return {result};
                 },
                 bounds});
  check_kernels({Upsample2dGradient(factor, way),
                 {y},
                 storages,
                 {random_integers(y.elements(), 2)},
                 [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                   Doubles result = zeros(x);
                   for_shares(x, y, factor, way, [&](auto i, auto j, double part) { result[i] += part * in[0][j]; });
                   return {result};
                 },
                 bounds});
}

TEST(Upsample2dKernels, AreExactByPowersOfTwo) {
  for (const auto& storages : storage_choices)
    for (const Shape& x : shapes)
      for (const Interpolation way : {Interpolation::nearest, Interpolation::bilinear})
        for (const Extent& factor : {Extent(1), Extent(2), Extent(4, 1)}) check_upsampling(x, factor, way, storages);
}

/// Shares by 3 have three roundings; the sum for one input is of up to 36 numbers of up to 4.
TEST(Upsample2dKernels, AreRightByAnyFactor) {
  for (const DType type : {DType::f32, DType::f16})
    for (const Shape& x : shapes) {
      check_upsampling(x, {3, 2}, Interpolation::bilinear, {type}, {{0.5, 8, 4 * 36}});
      check_upsampling(x, {3, 5}, Interpolation::nearest, {type});
    }
}

/// As PyTorch 2 prints interpolate([[1, 2], [3, 4]], scale_factor=2, mode="bilinear", align_corners=False).
TEST(Upsample2dKernels, GivePyTorchsNumbers) {
  check_kernels({Upsample2d(2, Interpolation::bilinear),
                 {{1, 2, 2, 1}},
                 {DType::f32},
                 {{1, 2, 3, 4}},
                 [](const std::vector<Doubles>&) -> std::vector<Doubles> {
                   return {{1, 1.25, 1.75, 2, 1.5, 1.75, 2.25, 2.5, 2.5, 2.75, 3.25, 3.5, 3, 3.25, 3.75, 4}};
                 }});
}

TEST(ChannelKernels, ScaleAndAdd) {
  for (const auto& storages : storage_choices)
    for (const Shape& x : shapes) {
      const Shape factors{x.n, 1, 1, x.c};
      check_kernels({ScaleChannels(),
                     {x, factors},
                     storages,
                     {random_integers(x.elements(), 1), random_integers(factors.elements(), 2)},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles y = zeros(x);
                       for_places(x, [&](auto n, auto h, auto w, auto c) {
                         y[at(x, n, h, w, c)] = in[0][at(x, n, h, w, c)] * in[1][at(factors, n, 0, 0, c)];
                       });
                       return {y};
                     }});
      check_kernels({ScaleChannelsGradient(),
                     {x, x},
                     storages,
                     {random_integers(x.elements(), 3), random_integers(x.elements(), 4)},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles d = zeros(factors);
                       for_places(x, [&](auto n, auto h, auto w, auto c) {
                         d[at(factors, n, 0, 0, c)] += in[0][at(x, n, h, w, c)] * in[1][at(x, n, h, w, c)];
                       });
                       return {d};
                     }});
      check_kernels({AddChannels(),
                     {x, Shape::vector(x.c)},
                     storages,
                     {random_integers(x.elements(), 5), random_integers(x.c, 6)},
                     [&](const std::vector<Doubles>& in) -> std::vector<Doubles> {
                       Doubles y = in[0];
                       for (std::size_t i = 0; i < y.size(); ++i) y[i] += in[1][i % in[1].size()];
                       return {y};
                     }});
    }
}

}  // namespace
}  // namespace halftone::test

#include "halftone/ops/pool2d.hpp"
#include "tests/kernels/harness.hpp"

namespace halftone {
namespace {

using test::Bound;
using test::Doubles;

struct Case {
  Shape x;
  PoolAttributes pool;
};

/// The nets' own pools, ragged edges, gaps, overlaps, padding, and channels around the vector lengths.
const std::vector<Case> cases = {{{2, 4, 4, 6}, {2, 2, 0}},
                                 {{3, 6, 8, 16}, {2, 2, 0}},
                                 {{1, 5, 7, 8}, {2, 2, 0}},
                                 {{2, 5, 5, 1}, {2, 2, 0}},
                                 {{1, 7, 4, 19}, {{3, 2}, {3, 2}, 0}},
                                 {{1, 6, 5, 12}, {2, 2, {1, 0}}},
                                 {{2, 9, 8, 5}, {2, 3, 0}},
                                 {{2, 9, 7, 6}, {3, 2, 1}},
                                 {{7, 26, 26, 6}, {2, 2, 0}},  // several rows a task, the last one fewer
                                 {{5, 21, 9, 3}, {3, 2, 1}},
                                 {{1, 8, 8, 33}, {3, 2, 1}},
                                 {{1, 5, 6, 16}, {3, 1, 1}},
                                 {{1, 7, 7, 3}, {{1, 4}, {2, 1}, {0, 2}}},
                                 {{1, 6, 6, 7}, {5, 3, 4}},
                                 {{4, 1, 1, 9}, {1, 1, 0}},
                                 {{3, 4, 3, 20}, {1, 1, 0, true}},
                                 {{2, 7, 7, 2}, {1, 1, 0, true}},
                                 {{2, 5, 7, 3}, {2, 2, 0, false, true}},
                                 {{1, 6, 7, 19}, {{3, 2}, {2, 3}, 1, false, true, true}},
                                 {{1, 2, 2, 4}, {3, 2, 0, false, true, true}},
                                 {{2, 7, 5, 17}, {3, {2, 1}, {1, 0}, false, false, true}},
                                 {{1, 5, 4, 8}, {2, {3, 2}, 1, false, true, true}}};

/// Calls f(output element, input elements of its window in row order, what a mean divides by), elements as indices.
template <class F>
void for_windows(const Case& c, const Shape& y, const F& f) {
  const auto [window, stride, padding, global, ceil_mode, count_include_pad] = c.pool;
  std::size_t output = 0;
  for (std::int64_t n = 0; n < y.n; ++n)
    for (std::int64_t p = 0; p < y.h; ++p)
      for (std::int64_t q = 0; q < y.w; ++q)
        for (std::int64_t k = 0; k < y.c; ++k) {
          std::vector<std::size_t> inside;
          for (std::int64_t h = 0; h < c.x.h; ++h)
            for (std::int64_t w = 0; w < c.x.w; ++w) {
              const std::int64_t r = h + padding.h - p * stride.h, s = w + padding.w - q * stride.w;
              if (global || (r >= 0 && r < window.h && s >= 0 && s < window.w))
                inside.push_back(static_cast<std::size_t>(((n * c.x.h + h) * c.x.w + w) * c.x.c + k));
            }
          std::size_t counted = count_include_pad ? 0 : inside.size();
          for (std::int64_t r = 0; count_include_pad && r < window.h; ++r)
            for (std::int64_t s = 0; s < window.w; ++s)
              counted += p * stride.h + r < c.x.h + 2 * padding.h && q * stride.w + s < c.x.w + 2 * padding.w;
          f(output++, inside, static_cast<double>(counted));
        }
}

Shape output_of(const Case& c) { return MaxPool2d(c.pool).infer(std::vector<ValueSpec>{{c.x}})[0].shape; }

std::size_t first_largest(const Doubles& x, const std::vector<std::size_t>& inside) {
  std::size_t best = inside[0];
  for (std::size_t i : inside)
    if (x[i] > x[best] || std::isnan(x[i])) best = i;
  return best;
}

void check_max(const Case& c, const std::vector<Storage>& storages, const std::vector<float>& x) {
  const Shape y = output_of(c);
  const auto maxima = [&](const std::vector<Doubles>& in) {
    Doubles result(static_cast<std::size_t>(y.elements()));
    for_windows(c, y,
                [&](std::size_t i, const auto& inside, double) { result[i] = in[0][first_largest(in[0], inside)]; });
    return std::vector<Doubles>{result};
  };
  test::check_kernels({MaxPool2d(c.pool), {c.x}, storages, {x}, maxima});
  const auto gradient = [&](const std::vector<Doubles>& in) {
    Doubles result(static_cast<std::size_t>(c.x.elements()));
    for_windows(c, y,
                [&](std::size_t i, const auto& inside, double) { result[first_largest(in[1], inside)] += in[0][i]; });
    return std::vector<Doubles>{result};
  };
  const auto rectified = [&](const std::vector<Doubles>& in) {
    auto result = gradient(in);
    for (std::size_t i = 0; i < x.size(); ++i) result[0][i] *= in[1][i] <= 0 ? 0 : 1;
    return result;
  };
  const MaxPool2dGradient op(c.pool);
  const auto both = op.with_slope(Relu());
  const auto d_y = test::random_integers(y.elements(), 2);
  test::check_kernels({op, {y, c.x}, storages, {d_y, x}, gradient});
  test::check_kernels({dynamic_cast<const MaxPool2dGradient&>(*both), {y, c.x}, storages, {d_y, x}, rectified});
}

TEST(PoolKernels, MaximaAndTheirGradients) {
  for (const auto& storages : test::storage_choices)
    for (const Case& c : cases) check_max(c, storages, test::random_values(c.x.elements(), 1));
}

/// Where rows end with a byte or block there is no copy in f32, which staging would make.
TEST(PoolKernels, PackedRowsAreWrittenAsTheyAre) {
  const Device device = cpu_device({.threads = 1});
  const MaxPool2d pool({2, 2, 0});
  for (const Storage& storage : {Storage(DType::sign), Storage::blocks(DType::e4m3, 32)})
    for (const std::int64_t c : {1, 8, 32}) {
      const ValueSpec x{{2, 16, 14, c}, storage}, y{{2, 8, 7, c}, storage};
      const bool whole = 7 * c % storage.granule() == 0;
      const Choice choice = choose_kernel({pool, {&x, 1}, {&y, 1}, device});
      EXPECT_EQ(choice.kernel, whole ? "max_pool2d/windows" : "max_pool2d/windows_in_f32");
      const auto copy = static_cast<std::size_t>(y.shape.elements()) * sizeof(float);
      EXPECT_EQ(choice.launch.workspace < copy, whole) << c;
      check_max({x.shape, {2, 2, 0}}, {storage}, test::random_integers(x.shape.elements(), 7, -2, 2));
    }
}

TEST(PoolKernels, ManyNumbersAreTakenInPacks) {
  const Case c{{9, 33, 31, 24}, {3, 2, 1}};
  check_max(c, {DType::f16}, test::random_values(c.x.elements(), 6));
}

TEST(PoolKernels, OfEqualMaximaTheFirstInRowOrderGetsTheGradient) {
  for (const Case& c : cases) check_max(c, {DType::f16}, test::random_integers(c.x.elements(), 3, 0, 1));
}

TEST(PoolKernels, NanIsAMaximum) {
  for (const Case& c : cases) {
    auto x = test::random_integers(c.x.elements(), 4);
    for (std::size_t i = 0; i < x.size(); i += 7) x[i] = std::numeric_limits<float>::quiet_NaN();
    for (std::size_t i = 3; i < x.size(); i += 5) x[i] = -std::numeric_limits<float>::infinity();
    check_max(c, {DType::bf16}, x);
  }
}

TEST(PoolKernels, MeansOfThePixelsInsideTheImage) {
  for (const auto& storages : test::storage_choices)
    for (const Case& c : cases) {
      const Shape y = output_of(c);
      const auto means = [&](const std::vector<Doubles>& in) {
        Doubles result(static_cast<std::size_t>(y.elements()));
        for_windows(c, y, [&](std::size_t i, const auto& inside, double counted) {
          for (std::size_t j : inside) result[i] += in[0][j];
          result[i] /= counted;
        });
        return std::vector<Doubles>{result};
      };
      test::check_kernels({AvgPool2d(c.pool), {c.x}, storages, {test::random_integers(c.x.elements(), 5)}, means});
    }
}

TEST(PoolKernels, GradientsOfMeans) {
  const Bound shares = {0.5, 25, 4};  // at most 25 windows of a 5x5 pool with stride 1 meet in a pixel
  for (const auto& storages : test::storage_choices)
    for (const Case& c : cases) {
      const Shape y = output_of(c);
      const auto gradient = [&](const std::vector<Doubles>& in) {
        Doubles result(static_cast<std::size_t>(c.x.elements()));
        for_windows(c, y, [&](std::size_t i, const auto& inside, double counted) {
          for (std::size_t j : inside) result[j] += in[0][i] / counted;
        });
        return std::vector<Doubles>{result};
      };
      const AvgPool2dGradient op(c.pool, {static_cast<int>(c.x.h), static_cast<int>(c.x.w)});
      test::check_kernels({op, {y}, storages, {test::random_integers(y.elements(), 6)}, gradient, {shares}});
    }
}

}  // namespace
}  // namespace halftone

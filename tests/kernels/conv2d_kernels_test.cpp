#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/spatial.hpp"
#include "tests/kernels/harness.hpp"

namespace halftone::test {
namespace {

/// Whatever the operands are: the products of few integers, and results that are packed.
std::vector<std::vector<Storage>> all_storages() {
  auto all = storage_choices;
  const Storage operand(DType::i8);
  all.push_back({operand, operand, Storage::blocks(DType::e2m1, 32)});
  return all;
}

/// A convolution with the output's shape worked out by hand.
struct Case {
  Shape x, w, y;
  ConvAttributes conv = {};
};

const std::vector<Case> cases = {
    {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}},                                // one product
    {{2, 4, 5, 19}, {33, 1, 1, 19}, {2, 4, 5, 33}},                            // a matrix product
    {{1, 5, 7, 4}, {3, 1, 1, 4}, {1, 3, 4, 3}, {2}},                           // one that skips pixels
    {{2, 6, 5, 1}, {3, 3, 3, 1}, {2, 6, 5, 3}, {1, 1}},                        // one channel
    {{2, 5, 6, 3}, {17, 3, 3, 3}, {2, 5, 6, 17}, {1, 1}},                      // a first layer
    {{3, 8, 8, 8}, {8, 3, 3, 8}, {3, 8, 8, 8}, {1, 1}},                        // an inner layer
    {{1, 9, 8, 5}, {4, 3, 3, 5}, {1, 5, 4, 4}, {2, 1}},                        // stride
    {{1, 8, 7, 3}, {5, 2, 2, 3}, {1, 3, 2, 5}, {3}},                           // pixels that no window has
    {{2, 9, 8, 3}, {5, 3, 3, 3}, {2, 9, 8, 5}, {1, 2, 2}},                     // dilation
    {{2, 5, 5, 6}, {10, 3, 3, 3}, {2, 5, 5, 10}, {1, 1, 1, 2}},                // groups
    {{1, 7, 6, 8}, {8, 3, 3, 1}, {1, 4, 3, 8}, {2, 1, 1, 8}},                  // depthwise
    {{1, 6, 5, 3}, {6, 3, 3, 1}, {1, 6, 5, 6}, {1, 1, 1, 3}},                  // two outputs a channel
    {{2, 4, 7, 2}, {3, 1, 4, 2}, {2, 4, 4, 3}},                                // a row of weights
    {{1, 8, 9, 3}, {5, 3, 2, 3}, {1, 4, 10, 5}, {{2, 1}, {1, 2}, {1, 3}}},     // h and w differ in all
    {{1, 10, 7, 4}, {6, 2, 3, 2}, {1, 5, 7, 6}, {{2, 1}, {1, 1}, {3, 1}, 2}},  // and with groups
    {{2, 3, 4, 5}, {6, 3, 4, 5}, {2, 1, 1, 6}},                                // the whole image
    {{1, 3, 3, 2}, {4, 3, 3, 2}, {1, 9, 9, 4}, {1, 4}},                        // windows in padding alone
    {{2, 5, 6, 3}, {17, 2, 4, 3}, {2, 5, 6, 17}, {1, {0, 1}, 1, 1, 1}},        // more padding at the end
    {{2, 9, 7, 2}, {3, 4, 2, 2}, {2, 9, 7, 3}, {1, {1, 0}, 1, 1, 1}},          // the same with few channels
    {{1, 7, 5, 4}, {6, 2, 2, 2}, {1, 4, 3, 6}, {2, 1, 3, 2, 1}},               // with stride, dilation and groups
};

/// Calls f(element of x, of w, of y) for each product that y is a sum of.
template <class F>
void for_products(const Case& c, const F& f) {
  const std::int64_t outputs = c.w.n / c.conv.groups;
  const auto at = [](const Shape& shape, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t channel) {
    return static_cast<std::size_t>(((n * shape.h + h) * shape.w + w) * shape.c + channel);
  };
  for (std::int64_t n = 0; n < c.y.n; ++n)
    for (std::int64_t p = 0; p < c.y.h; ++p)
      for (std::int64_t q = 0; q < c.y.w; ++q)
        for (std::int64_t r = 0; r < c.w.h; ++r)
          for (std::int64_t s = 0; s < c.w.w; ++s) {
            const std::int64_t h = p * c.conv.stride.h - c.conv.padding.h + r * c.conv.dilation.h;
            const std::int64_t w = q * c.conv.stride.w - c.conv.padding.w + s * c.conv.dilation.w;
            if (h < 0 || h >= c.x.h || w < 0 || w >= c.x.w) continue;
            for (std::int64_t k = 0; k < c.w.n; ++k)
              for (std::int64_t i = 0; i < c.w.c; ++i)
                f(at(c.x, n, h, w, k / outputs * c.w.c + i), at(c.w, k, r, s, i), at(c.y, n, p, q, k));
          }
}

/// A dense layer as the same kind of sum.
struct DenseCase {
  Shape x, w, y;
};

const std::vector<DenseCase> dense_cases = {{{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}},
                                            {{3, 2, 3, 5}, {7, 1, 1, 30}, {3, 1, 1, 7}},
                                            {{5, 1, 1, 33}, {1, 1, 1, 33}, {5, 1, 1, 1}},
                                            {{1, 1, 1, 300}, {10, 1, 1, 300}, {1, 1, 1, 10}},
                                            {{19, 1, 1, 16}, {40, 1, 1, 16}, {19, 1, 1, 40}}};

template <class F>
void for_products(const DenseCase& c, const F& f) {
  const auto n = static_cast<std::size_t>(c.x.n), units = static_cast<std::size_t>(c.w.n),
             features = static_cast<std::size_t>(c.w.c);
  for (std::size_t row = 0; row < n; ++row)
    for (std::size_t unit = 0; unit < units; ++unit)
      for (std::size_t i = 0; i < features; ++i) f(row * features + i, unit * features + i, row * units + unit);
}

Doubles zeros(const Shape& shape) { return Doubles(static_cast<std::size_t>(shape.elements())); }

std::vector<float> integers(const Shape& shape, unsigned seed) { return random_integers(shape.elements(), seed); }

/// What tensors hold, and how far results may lie from the reference; by default integers, so that every sum is exact.
struct Content {
  std::function<std::vector<float>(const Shape&, unsigned)> of = integers;
  std::vector<Bound> bounds = {};
};

/// With and without bias and relu.
template <class AnyCase, class AnyOp>
void check_forward(const AnyCase& c, AnyOp op, const std::vector<Storage>& storages, const Content& content = {}) {
  for (const std::optional<Activation>& epilogue : {std::optional<Activation>(), std::optional<Activation>(Relu{})})
    for (bool bias : {false, true}) {
      op.epilogue = epilogue;
      const auto reference = [&](const std::vector<Doubles>& in) {
        Doubles y = zeros(c.y);
        for_products(c, [&](auto i, auto j, auto k) { y[k] += in[0][i] * in[1][j]; });
        for (std::size_t i = 0; i < y.size(); ++i) {
          if (bias) y[i] += in[2][i % in[2].size()];
          if (epilogue && y[i] < 0) y[i] = 0;
        }
        return std::vector<Doubles>{y};
      };
      KernelTest test{op, {c.x, c.w}, storages, {content.of(c.x, 1), content.of(c.w, 2)}, reference, content.bounds};
      if (bias) test.shapes.push_back(Shape::vector(c.w.n)), test.values.push_back(random_integers(c.w.n, 3));
      ASSERT_EQ(to_string(op.infer(std::vector<ValueSpec>{{c.x}, {c.w}})[0].shape), to_string(c.y));
      check_kernels(test);
    }
}

template <class AnyCase>
void check_gradients(const AnyCase& c, const Op& d_input, const Op& d_weight, const std::vector<Storage>& storages,
                     const Content& content = {}) {
  const auto of_input = [&](const std::vector<Doubles>& in) {
    Doubles d_x = zeros(c.x);
    for_products(c, [&](auto i, auto j, auto k) { d_x[i] += in[0][k] * in[1][j]; });
    return std::vector<Doubles>{d_x};
  };
  check_kernels({d_input, {c.y, c.w}, storages, {content.of(c.y, 4), content.of(c.w, 5)}, of_input, content.bounds});
  const auto of_weight = [&](const std::vector<Doubles>& in) {
    Doubles d_w = zeros(c.w);
    for_products(c, [&](auto i, auto j, auto k) { d_w[j] += in[0][i] * in[1][k]; });
    return std::vector<Doubles>{d_w};
  };
  check_kernels({d_weight, {c.x, c.y}, storages, {content.of(c.x, 6), content.of(c.y, 7)}, of_weight, content.bounds});
}

Extent extent_of(const Shape& x) { return {static_cast<int>(x.h), static_cast<int>(x.w)}; }

TEST(Conv2dKernels, AreExactOnIntegers) {
  for (const auto& storages : all_storages())
    for (const Case& c : cases) check_forward(c, Conv2d(c.conv), storages);
}

TEST(Conv2dKernels, GiveTheGradients) {
  for (const auto& storages : all_storages())
    for (const Case& c : cases) {
      check_gradients(c, Conv2dDInput(c.conv, extent_of(c.x)), Conv2dDWeight(c.conv, c.w), storages);
    }
}

/// The output padding of the transposed convolution to x; none where that is no such.
std::optional<Extent> output_padding(const Case& c) {
  const auto missing = [](std::int64_t x, std::int64_t y, std::int64_t taps, int stride, int padding, int dilation) {
    const std::int64_t rest = x - ((y - 1) * stride - 2 * padding + dilation * (taps - 1) + 1);
    return rest < std::max(stride, dilation) ? static_cast<int>(rest) : -1;
  };
  const ConvAttributes& a = c.conv;
  const Extent rest{missing(c.x.h, c.y.h, c.w.h, a.stride.h, a.padding.h, a.dilation.h),
                    missing(c.x.w, c.y.w, c.w.w, a.stride.w, a.padding.w, a.dilation.w)};
  return std::min(rest.h, rest.w) < 0 ? std::optional<Extent>() : rest;
}

TEST(ConvTranspose2dKernels, AreExactOnIntegers) {
  int checked = 0;
  for (const auto& storages : all_storages())
    for (const Case& c : cases)
      if (const auto rest = output_padding(c)) {
        const ConvTranspose2d op(c.conv, *rest);
        ASSERT_EQ(to_string(op.infer(std::vector<ValueSpec>{{c.y}, {c.w}})[0].shape), to_string(c.x));
        check_gradients(c, op, Conv2dDWeight(c.conv, c.w), storages);
        ++checked;
      }
  EXPECT_GE(checked, 10);
}

/// A sum of n products of numbers up to 2 is off by n 2^-24 times 4 n at most; f16 sums would be off by 2^-11 of
/// theirs.
TEST(Conv2dKernels, SumInF32) {
  const Case c{{3, 9, 8, 40}, {24, 3, 3, 40}, {3, 9, 8, 24}, {1, 1}};
  constexpr double most_terms = 3 * 3 * 40;  // those of the gradients are fewer
  const Content random{[](const Shape& shape, unsigned seed) { return random_values(shape.elements(), seed); },
                       {{0, most_terms / 2, 4 * most_terms}}};
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    const std::vector<Storage> storages = {type, type, DType::f32};
    check_gradients(c, Conv2dDInput(c.conv, extent_of(c.x)), Conv2dDWeight(c.conv, c.w), storages, random);
    check_kernels({Conv2d(c.conv),
                   {c.x, c.w},
                   storages,
                   {random.of(c.x, 1), random.of(c.w, 2)},
                   [&](const std::vector<Doubles>& in) {
                     Doubles y = zeros(c.y);
                     for_products(c, [&](auto i, auto j, auto k) { y[k] += in[0][i] * in[1][j]; });
                     return std::vector<Doubles>{y};
                   },
                   random.bounds});
  }
}

TEST(Conv2dKernels, LetNanAndInfinityThrough) {
  const Case c{{2, 4, 6, 24}, {16, 2, 2, 24}, {2, 3, 5, 16}};  // no padding, which a GPU multiplies as zeros
  const auto broken = [&](const Shape& shape, unsigned seed) {
    auto values = integers(shape, seed);
    if (&shape == &c.w && seed != 2) return values;  // the data gradient has padding
    constexpr float infinity = std::numeric_limits<float>::infinity();
    values[seed] = infinity, values[values.size() / 2] = -infinity;
    values[values.size() - 1] = std::numeric_limits<float>::quiet_NaN();
    return values;
  };
  for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
    check_forward(c, Conv2d(c.conv), {type}, {broken});
    check_gradients(c, Conv2dDInput(c.conv, extent_of(c.x)), Conv2dDWeight(c.conv, c.w), {type}, {broken});
  }
}

TEST(DenseKernels, AreExactOnIntegers) {
  for (const auto& storages : all_storages())
    for (const DenseCase& c : dense_cases) check_forward(c, Dense(), storages);
}

TEST(DenseKernels, GiveTheGradients) {
  for (const auto& storages : all_storages())
    for (const DenseCase& c : dense_cases) check_gradients(c, DenseDInput(c.x), DenseDWeight(), storages);
}

}  // namespace
}  // namespace halftone::test

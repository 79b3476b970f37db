#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
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

/// With and without bias and relu: integers, so that every sum is exact.
template <class AnyCase, class AnyOp>
void check_forward(const AnyCase& c, AnyOp op, const std::vector<Storage>& storages) {
  for (const std::optional<Activation>& epilogue : {std::optional<Activation>(), std::optional<Activation>(Relu{})})
    for (bool bias : {false, true}) {
      op.epilogue = epilogue;
      const auto reference = [&](const std::vector<Doubles>& in) {
        Doubles y = zeros(c.y);
        for_products(c, [&](auto i, auto j, auto k) { y[k] += in[0][i] * in[1][j]; });
        for (std::size_t i = 0; i < y.size(); ++i) {
          if (bias) y[i] += in[2][i % in[2].size()];
          if (epilogue) y[i] = std::max(y[i], 0.0);
        }
        return std::vector<Doubles>{y};
      };
      KernelTest test{op, {c.x, c.w}, storages, {integers(c.x, 1), integers(c.w, 2)}, reference};
      if (bias) test.shapes.push_back(Shape::vector(c.w.n)), test.values.push_back(random_integers(c.w.n, 3));
      ASSERT_EQ(to_string(op.infer(std::vector<ValueSpec>{{c.x}, {c.w}})[0].shape), to_string(c.y));
      check_kernels(test);
    }
}

template <class AnyCase>
void check_gradients(const AnyCase& c, const Op& d_input, const Op& d_weight, const std::vector<Storage>& storages) {
  check_kernels({d_input, {c.y, c.w}, storages, {integers(c.y, 4), integers(c.w, 5)}, [&](const auto& in) {
                   Doubles d_x = zeros(c.x);
                   for_products(c, [&](auto i, auto j, auto k) { d_x[i] += in[0][k] * in[1][j]; });
                   return std::vector<Doubles>{d_x};
                 }});
  check_kernels({d_weight, {c.x, c.y}, storages, {integers(c.x, 6), integers(c.y, 7)}, [&](const auto& in) {
                   Doubles d_w = zeros(c.w);
                   for_products(c, [&](auto i, auto j, auto k) { d_w[j] += in[0][i] * in[1][k]; });
                   return std::vector<Doubles>{d_w};
                 }});
}

TEST(Conv2dKernels, AreExactOnIntegers) {
  for (const auto& storages : all_storages())
    for (const Case& c : cases) check_forward(c, Conv2d(c.conv), storages);
}

TEST(Conv2dKernels, GiveTheGradients) {
  for (const auto& storages : all_storages())
    for (const Case& c : cases) {
      const Extent extent(static_cast<int>(c.x.h), static_cast<int>(c.x.w));
      check_gradients(c, Conv2dDInput(c.conv, extent), Conv2dDWeight(c.conv, c.w), storages);
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

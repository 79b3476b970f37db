#include <gtest/gtest.h>

#include "halftone/graph/plan.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/initializers.hpp"
#include "halftone/ops/pool2d.hpp"

namespace halftone {
namespace {

/// What `layer` makes of `numbers` [1, h, w, 1].
std::vector<float> run(const std::function<Value(Value)>& layer, std::int64_t h, std::int64_t w,
                       const std::vector<float>& numbers) {
  Graph g;
  const Value x = g.input("x", {1, h, w, 1}), y = layer(x);
  const Device device = cpu_device({.threads = 1});
  const Parameters parameters(g, device, {});
  const std::vector<int> keep = {y.id()};
  const Plan plan(g, parameters, keep);
  plan.view(x.id()).write(numbers);
  plan.run();
  return plan.view(y.id()).read();
}

TEST(Conv2d, KeepsTheExtentByDefault) {
  Graph g;
  const Value x = g.input("x", {2, 9, 8, 3});
  for (const Extent kernel : {Extent(1), Extent(2), Extent(3), Extent(4), Extent(5, 2), Extent(8, 9)})
    for (const Extent dilation : {Extent(1), Extent(2), Extent(3, 1)})
      for (int stride : {1, 2, 3}) {
        const Shape y = conv2d(x, 2, kernel, {.stride = stride, .dilation = dilation}).shape();
        EXPECT_EQ(to_string(y), to_string(Shape{2, (9 + stride - 1) / stride, (8 + stride - 1) / stride, 2}));
      }
}

/// As PyTorch 2 prints conv2d(torch.arange(1., 7.).view(1, 1, 2, 3), torch.ones(1, 1, 2, 2), padding="same").
TEST(Conv2d, HasTheOddPixelOfPaddingAtTheEnd) {
  const Conv2dOptions options{.bias = false, .weight_init = constant(1)};
  EXPECT_EQ(run([&](Value x) { return conv2d(x, 1, 2, options); }, 2, 3, {1, 2, 3, 4, 5, 6}),
            (std::vector<float>{12, 16, 9, 9, 11, 6}));
}

/// By the definition of PyTorch's pools: ceil((in + 2 padding - window) / stride) + 1, less one where the last window
/// would begin behind the image and its left padding.
TEST(Pool2d, CeilModeDropsAWindowThatBeginsInTheRightPadding) {
  Graph g;
  struct {
    int in, window, stride, padding, floor, ceil;
  } cases[] = {{5, 2, 2, 0, 2, 3}, {6, 2, 2, 0, 3, 3}, {5, 3, 2, 1, 3, 3}, {6, 3, 2, 1, 3, 4},
               {7, 2, 3, 1, 3, 3}, {5, 2, 3, 1, 2, 2}, {4, 2, 5, 1, 1, 1}, {8, 3, 4, 1, 2, 3}};
  for (const auto& c : cases) {
    const Value x = g.input(g.numbered("x"), {1, c.in, c.in, 1});
    const auto pooled = [&](bool ceil_mode) {
      return avg_pool2d(x, c.window, {.stride = c.stride, .padding = c.padding, .ceil_mode = ceil_mode}).shape().w;
    };
    EXPECT_EQ(pooled(false), c.floor) << c.in;
    EXPECT_EQ(pooled(true), c.ceil) << c.in;
  }
  const Value small = g.input("small", {1, 2, 2, 1});
  EXPECT_EQ(max_pool2d(small, 3, {.stride = 2, .ceil_mode = true}).shape().h, 1);
  EXPECT_THROW(max_pool2d(small, 3, {.stride = 2}), Error);
  EXPECT_THROW(max_pool2d(small, 4, {.stride = 2, .ceil_mode = true}), Error);
}

/// As PyTorch's F.avg_pool2d(torch.ones(1, 1, 1, 4), (1, 3), (1, 2), (0, 1), ceil_mode=True, count_include_pad=...):
/// the last window holds one number, one of padding and one behind it.
TEST(Pool2d, TheDivisorAtTheBorderIsAnOption) {
  const std::vector<float> ones(4, 1);
  PoolOptions options{.stride = Extent(1, 2), .padding = Extent(0, 1), .ceil_mode = true};
  const auto means = [&](Value x) { return avg_pool2d(x, Extent(1, 3), options); };
  EXPECT_EQ(run(means, 1, 4, ones), (std::vector<float>{1, 1, 1}));
  options.count_include_pad = true;
  EXPECT_EQ(run(means, 1, 4, ones), (std::vector<float>{2.0f / 3, 1, 0.5f}));
}

TEST(IdentityFirst, IsForTheShapeThatItWasMadeFor) {
  const auto weights = [](std::int64_t filters) {
    Graph g;
    conv2d(g.input("x", {1, 4, 4, 2}), 8, 3, {.weight_init = identity_first({filters, 3, 3, 2}, constant(0.5f))});
    const Parameters parameters(g, cpu_device(), {});
    return parameters.weight(parameters.entries[0]).read();
  };
  const auto found = weights(8);
  for (std::size_t i = 0; i < 2 * 18; ++i) EXPECT_EQ(found[i], i == 8 || i == 18 + 9 ? 1 : 0) << i;
  EXPECT_EQ(found[2 * 18], 0.5f);
  EXPECT_THROW(weights(64), Error);
}

}  // namespace
}  // namespace halftone

#include "kernels/cpu/xnor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "halftone/halftone.hpp"

namespace halftone::cpu {
namespace {

using Numbers = std::vector<float>;

/// Widths of no whole word, and windows that lie partly or wholly in the padding.
const ConvProblem problems[] = {
    {.n = 1, .c = 1, .k = 8},
    {.n = 13, .c = 130, .k = 40},
    {.n = 3, .c = 4100, .k = 72},  // more words than a byte counts
    {.n = 2, .h = 7, .w = 6, .c = 5, .k = 16, .r = 3, .s = 3, .p = 7, .q = 6, .pad_h = 1, .pad_w = 1},
    {.n = 1, .h = 3, .w = 3, .c = 2, .k = 8, .r = 3, .s = 3, .p = 9, .q = 9, .pad_h = 4, .pad_w = 4},
    {.n = 2,
     .h = 9,
     .w = 8,
     .c = 64,
     .k = 24,
     .r = 3,
     .s = 2,
     .p = 5,
     .q = 5,
     .stride_h = 2,
     .stride_w = 2,
     .pad_h = 1,
     .pad_w = 1},
    {.n = 1,
     .h = 9,
     .w = 8,
     .c = 70,
     .k = 32,
     .r = 3,
     .s = 3,
     .p = 7,
     .q = 6,
     .pad_h = 1,
     .pad_w = 1,
     .dilation_h = 2,
     .dilation_w = 2,
     .groups = 2}};

struct Signs {
  ConvProblem problem;
  Numbers x, weight, bias;

  explicit Signs(const ConvProblem& p, unsigned seed = 1) : problem(p) {
    std::mt19937 random(seed);
    const auto signs = [&](std::int64_t count) {
      Numbers numbers(static_cast<std::size_t>(count));
      for (float& number : numbers) number = random() % 2 ? 1.0f : -1.0f;
      return numbers;
    };
    x = signs(p.n * p.h * p.w * p.c);
    weight = signs(p.k * p.r * p.s * p.c / p.groups);
    bias.resize(static_cast<std::size_t>(p.k));
    for (float& number : bias) number = static_cast<float>(random() % 1000) / 7 - 70;
  }

  /// Sums of products, [n, p, q, k]; what lies in the padding counts `padding` times the weight.
  std::vector<int> sums(int padding = 0) const {
    const ConvProblem& c = problem;
    const std::int64_t channels = c.c / c.groups, filters = c.k / c.groups;
    std::vector<int> result;
    for (std::int64_t pixel = 0; pixel < c.n * c.p * c.q; ++pixel)
      for (std::int64_t k = 0; k < c.k; ++k) {
        int& sum = result.emplace_back(0);
        for (std::int64_t tap = 0; tap < c.r * c.s; ++tap) {
          const std::int64_t n = pixel / (c.p * c.q),
                             h = pixel / c.q % c.p * c.stride_h - c.pad_h + tap / c.s * c.dilation_h,
                             w = pixel % c.q * c.stride_w - c.pad_w + tap % c.s * c.dilation_w;
          const bool inside = h >= 0 && h < c.h && w >= 0 && w < c.w;
          for (std::int64_t i = 0; i < channels; ++i) {
            const auto at = static_cast<std::size_t>(((n * c.h + h) * c.w + w) * c.c + k / filters * channels + i);
            const float factor = inside ? x[at] : static_cast<float>(padding);
            sum += static_cast<int>(factor * weight[static_cast<std::size_t>((k * c.r * c.s + tap) * channels + i)]);
          }
        }
      }
    return result;
  }

  Convolution convolution(const Storage& output) const {
    const ConvProblem& p = problem;
    return {
        p,
        Direction::forward,
        {{{{p.n, p.h, p.w, p.c}, DType::sign}, {{p.k, p.r, p.s, p.c / p.groups}, DType::sign}, {Shape::vector(p.k)}},
         {{p.n, p.p, p.q, p.k}, output}}};
  }
};

std::vector<std::byte> packed(const Numbers& signs) {
  std::vector<std::byte> bytes(Storage(DType::sign).bytes(std::ssize(signs)));
  write_numbers(DType::sign, bytes.data(), std::ssize(signs), 0, std::ssize(signs), signs.data());
  return bytes;
}

/// What a launch on [x, weight, bias, more] leaves in so many bytes.
std::vector<std::byte> run(const Launch& launch, const Signs& signs, std::size_t bytes,
                           std::vector<Numbers> more = {}) {
  auto x = packed(signs.x), weight = packed(signs.weight);
  more.insert(more.begin(), signs.bias);
  std::vector<Memory> inputs = {{x.data()}, {weight.data()}};
  for (Numbers& numbers : more) inputs.push_back({numbers.data()});
  std::vector<std::byte> y(bytes, std::byte{0xa5}), workspace(launch.workspace, std::byte{0xa5});
  StepState state;
  const Memory output{y.data()};
  launch.run({inputs, {&output, 1}, workspace.data(), &state});
  return y;
}

/// Calls f(loops, instruction set) for all that this machine runs.
template <class F>
void for_loops(F&& f) {
  for (const Isa isa : all_isas) {
    if (!supported(isa)) continue;
    SCOPED_TRACE(name_of(isa));
    f(xnor_loops(isa, false), isa);
    if (isa == Isa::avx512 && counts_bits()) f(xnor_loops(isa, true), isa);
  }
}

TEST(Xnor, HasTheBitsOfTheEngine) {
  for (const ConvProblem& problem : problems) {
    const Signs signs(problem);
    Convolution convolution = signs.convolution(DType::f32);
    ASSERT_EQ(decline_xnor(convolution), "");
    const auto sums = signs.sums();
    Numbers expected;
    for (std::size_t i = 0; i < sums.size(); ++i)
      expected.push_back(static_cast<float>(sums[i]) + signs.bias[i % signs.bias.size()]);
    const auto bytes = std::as_bytes(std::span(expected));
    for (const bool with_relu : {false, true}) {
      if (with_relu) {
        convolution.activation = Relu{};
        for (float& y : expected) y = y > 0 ? y : 0;
      }
      for_loops([&](const XnorLoops& loops, Isa isa) {
        for (const int threads : {1, 3}) {
          const auto y = run(xnor(convolution, loops, isa, threads), signs, bytes.size());
          EXPECT_TRUE(std::ranges::equal(y, bytes)) << "k " << problem.k << ", relu " << with_relu;
        }
        EXPECT_TRUE(std::ranges::equal(run(implicit_gemm(convolution, isa, 1), signs, bytes.size()), bytes));
      });
    }
  }
}

/// The control: where padding is a sign, as it is to who does not correct the border, the border differs.
TEST(Xnor, PaddingIsNoSign) {
  const Signs signs(problems[3]);
  for (const int padding : {-1, 1}) EXPECT_NE(signs.sums(padding), signs.sums());
}

TEST(Xnor, FoldsNormAndSignExactly) {
  constexpr float epsilon = 1e-5f;
  for (const ConvProblem& problem : problems) {
    const Signs signs(problem);
    const auto k = static_cast<std::size_t>(problem.k);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    Numbers gamma(k), beta(k), mean(k), variance(k);
    for (std::size_t i = 0; i < k; ++i) {
      gamma[i] = i % 7 == 3 ? 0 : normal(random);
      beta[i] = i % 7 == 3 && i % 2 ? 0 : normal(random) * (i % 5 == 1 ? 1000.0f : 1.0f);
      // Every other mean is a sum that occurs plus the bias, so that the norm is 0 or a rounding away from it.
      mean[i] = i % 2 ? static_cast<float>(signs.sums()[i]) + signs.bias[i] : 10 * normal(random);
      if (i % 4 == 1) beta[i] = i % 8 == 1 ? 0 : -1e-30f;
      variance[i] = std::abs(normal(random)) * 100;
    }
    Numbers expected;
    const auto sums = signs.sums();
    std::size_t on_the_edge = 0;
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const std::size_t j = i % k;
      const auto factor = static_cast<float>(gamma[j] / std::sqrt(static_cast<double>(variance[j]) + epsilon));
      const float centred = static_cast<float>(sums[i]) + signs.bias[j] - mean[j];
      const float norm = factor * centred + beta[j];
      on_the_edge += centred == 0;
      expected.push_back(norm >= 0 ? 1.0f : -1.0f);
    }
    EXPECT_GT(on_the_edge, 0u);
    Convolution convolution = signs.convolution(DType::sign);
    for (const Numbers* vector : {&gamma, &beta, &mean, &variance})
      convolution.operands.inputs.push_back({Shape::vector(std::ssize(*vector))});
    const auto bits = packed(expected);
    for_loops([&](const XnorLoops& loops, Isa isa) {
      for (const int threads : {1, 3})
        EXPECT_EQ(
            run(xnor(convolution, loops, isa, threads, epsilon), signs, bits.size(), {gamma, beta, mean, variance}),
            bits)
            << "k " << problem.k;
    });
  }
}

TEST(Xnor, TakesNothingElse) {
  const Convolution signs = Signs(problems[1]).convolution(DType::f32);
  EXPECT_EQ(decline_xnor(signs), "");
  for (const std::size_t i : {0, 1}) {
    Convolution other = signs;
    other.operands.inputs[i].storage = DType::i8;
    EXPECT_NE(decline_xnor(other), "");
  }
  Convolution back = signs;
  back.direction = Direction::d_weight;
  EXPECT_NE(decline_xnor(back), "");
}

/// Values of a binary net of two convolutions and three dense layers in evaluation, some of them kept for the user.
std::vector<Numbers> evaluate(const Precision& precision, bool keeps_all, std::vector<std::string>& kernels) {
  Graph graph;
  Value x = graph.input("images", {5, 9, 9, 3});
  for (int i = 0; i < 3; ++i) x = relu(batch_norm(conv2d(x, 16, 3, {.bias = i == 1})));
  x = relu(dense(max_pool2d(x, 2), 24));
  x = dense(relu(dense(x, 40)), 7);
  const Device device = cpu_device({.threads = 2});
  const Graph net = for_evaluation(graph, x.id(), 5, precision, device);
  Parameters parameters(net, device, {.precision = precision, .gradients = false, .seed = 4});
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i) {
    Numbers numbers = parameters.statistic(i).read();
    for (std::size_t j = 0; j < numbers.size(); ++j) numbers[j] += uniform(9, 0, static_cast<std::uint32_t>(i), j);
    parameters.assign_statistic(i, numbers);
  }
  std::vector<int> keep = {x.id()};
  for (const Node& node : net->nodes)
    if (keeps_all) keep.push_back(node.outputs[0]);
  const Plan plan(net, parameters, keep);
  Numbers images(5 * 9 * 9 * 3);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = uniform(8, 0, 0, i);
  plan.view(net->inputs[0]).write(images);
  plan.run();
  kernels.clear();
  for (const auto& report : plan.kernels()) kernels.push_back(report.kernel);
  return {plan.view(x.id()).read()};
}

TEST(Xnor, ABinaryNetIsFoldedAndComputesTheSame) {
  std::vector<std::string> folded, whole, other;
  const auto count = [](const std::vector<std::string>& kernels, const char* ending) {
    return std::count_if(kernels.begin(), kernels.end(), [&](const auto& kernel) { return kernel.ends_with(ending); });
  };
  const auto output = evaluate(Precision::binary(), false, folded);
  EXPECT_EQ(count(folded, "conv2d_signs/own"), 2);
  EXPECT_EQ(count(folded, "dense_signs/own"), 1) << "a pool of signs is signs";
  EXPECT_EQ(count(folded, "dense/xnor"), 1) << "the last layer reads numbers";
  EXPECT_EQ(evaluate(Precision::binary(), true, whole), output);
  EXPECT_EQ(count(whole, "signs/own"), 0) << "what is kept is computed";
  EXPECT_EQ(count(whole, "xnor"), 4);
  EXPECT_NE(evaluate(Precision::f32(), false, other), output);
  EXPECT_EQ(count(other, "xnor"), 0);
}

}  // namespace
}  // namespace halftone::cpu

#include "halftone/numeric/philox.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/quantize.hpp"
#include "tests/kernels/harness.hpp"

namespace halftone {
namespace {

using test::Bound;
using test::Doubles;
using test::KernelTest;

constexpr float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();

/// One element, around a conversion chunk, and enough for several threads.
const std::vector<Shape> shapes = {{1, 1, 1, 1}, {1, 1, 31, 33}, {1, 4, 16, 16}, {3, 5, 7, 11}, {2, 61, 15, 11}};

using Unary = std::function<double(double)>;
using Binary = std::function<double(double, double)>;

test::Reference elementwise(const Unary& f) {
  return [f](const std::vector<Doubles>& in) {
    Doubles y;
    for (double x : in[0]) y.push_back(f(x));
    return std::vector<Doubles>{y};
  };
}

test::Reference elementwise(const Binary& f) {
  return [f](const std::vector<Doubles>& in) {
    Doubles y;
    for (std::size_t i = 0; i < in[0].size(); ++i) y.push_back(f(in[0][i], in[1][i]));
    return std::vector<Doubles>{y};
  };
}

/// The operation over all shapes and formats on random numbers, and once on numbers that are not finite.
void check(const Op& op, std::size_t inputs, const test::Reference& reference, const Bound& bound = {}) {
  for (const auto& storages : test::storage_choices) {
    for (const Shape& shape : shapes) {
      KernelTest test{op, {}, storages, {}, reference, {bound}};
      for (std::size_t i = 0; i < inputs; ++i) {
        test.shapes.push_back(shape);
        test.values.push_back(test::random_values(shape.elements(), static_cast<unsigned>(i + 1), -4, 4));
      }
      test::check_kernels(test);
    }
    KernelTest test{op, {}, storages, {}, reference, {bound}};
    const std::vector<float> first = {0, -0.0f, infinity, -infinity, nan, 1, -1, 2, infinity},
                             second = {1, 2, 1, 0, 1, nan, infinity, -infinity, -infinity};
    for (std::size_t i = 0; i < inputs; ++i) {
      test.shapes.push_back(Shape::vector(static_cast<std::int64_t>(first.size())));
      test.values.push_back(i == 0 ? first : second);
    }
    test::check_kernels(test);
  }
}

double relu_of(double x) { return x < 0 ? 0 : x; }

TEST(PointwiseKernels, Relu) { check(Activate{Relu{}}, 1, elementwise(relu_of)); }

TEST(PointwiseKernels, ActivationsWithParameters) {
  check(Activate{LeakyRelu{0.25f}}, 1, elementwise([](double x) { return x < 0 ? 0.25 * x : x; }));
  check(Activate{Relu6{}}, 1, elementwise([](double x) { return x < 0 ? 0 : x > 6 ? 6 : x; }));
  check(Activate{HardTanh{}}, 1, elementwise([](double x) { return x < -1 ? -1 : x > 1 ? 1 : x; }));
}

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }
double gelu_of(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

// A function built of some ten roundings of numbers up to 4.
const Bound smooth = {0.5, 10, 4};

TEST(PointwiseKernels, SmoothActivationsReachTheirFormulas) {
  const std::vector<std::pair<Activation, Unary>> activations = {{Sigmoid{}, sigmoid_of},
                                                                 {Tanh{}, [](double x) { return std::tanh(x); }}};
  for (const auto& [activation, f] : activations) check(Activate{activation}, 1, elementwise(f), smooth);
}

TEST(PointwiseKernels, SelfGatedActivationsReachTheirFormulas) {
  const std::vector<std::pair<Activation, Unary>> activations = {
      {Gelu{}, gelu_of},
      {GeluTanh{},
       [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }},
      {Silu{}, [](double x) { return x * sigmoid_of(x); }}};
  for (const auto& [activation, f] : activations)
    for (const auto& storages : test::storage_choices)
      test::check_kernels({Activate{activation},
                           {{2, 5, 7, 11}},
                           storages,
                           {test::random_values(770, 3, -4, 4)},
                           elementwise(f),
                           {smooth}});
}

TEST(PointwiseKernels, GradientsOfEveryActivation) {
  const auto numerically = [](const Unary& f) {
    return [f](double d, double x) { return d * (f(x + 1e-5) - f(x - 1e-5)) / 2e-5; };
  };
  const std::vector<std::pair<Activation, Binary>> activations = {
      {Sigmoid{}, [](double d, double y) { return d * y * (1 - y); }},
      {Tanh{}, [](double d, double y) { return d * (1 - y * y); }},
      {Gelu{}, numerically(gelu_of)},
      {GeluTanh{}, numerically([](double x) {
         return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       })},
      {Silu{}, numerically([](double x) { return x * sigmoid_of(x); })}};
  for (const auto& [activation, f] : activations)
    for (const auto& storages : test::storage_choices) {
      const Shape shape{2, 5, 7, 11};
      test::check_kernels({ActivationGradient{activation},
                           {shape, shape},
                           storages,
                           {test::random_values(770, 4), test::random_values(770, 5, -3, 3)},
                           elementwise(f),
                           {{0.5, 40, 16}}});
    }
}

TEST(PointwiseKernels, ASlopeOfZeroLetsNothingPass) {
  const auto passes = [](double d, double y) { return y <= 0 ? 0 : d; };
  check(ActivationGradient{Relu{}}, 2, elementwise(passes));
  check(ActivationGradient{Relu6{}}, 2, elementwise([](double d, double y) { return y <= 0 || y >= 6 ? 0 : d; }));
  check(ActivationGradient{HardTanh{}}, 2, elementwise([](double d, double y) { return std::abs(y) >= 1 ? 0 : d; }));
  check(ActivationGradient{LeakyRelu{0.25f}}, 2, elementwise([](double d, double y) { return y <= 0 ? 0.25 * d : d; }));
}

TEST(PointwiseKernels, Add) {
  const auto sum = [](double a, double b) { return static_cast<double>(static_cast<float>(a + b)); };
  check(Add{}, 2, elementwise(sum));
  Add fused;
  fused.epilogue = Relu{};
  check(fused, 2, elementwise([sum](double a, double b) { return relu_of(sum(a, b)); }));
}

TEST(PointwiseKernels, MultiplyAndScale) {
  check(Multiply{}, 2, elementwise([](double a, double b) { return a * b; }));
  check(Scale{0.1f}, 1, elementwise([](double x) { return x * static_cast<double>(0.1f); }));
}

TEST(PointwiseKernels, CastBetweenAllStorages) {
  std::vector<Storage> storages = {Storage::fixed(4, 9, Rounding::stochastic),
                                   test::in_range(DType::i8),
                                   Storage::blocks(DType::e2m1, 32),
                                   Storage::blocks(DType::e4m3, 64),
                                   Storage::scaled(DType::e5m2),
                                   Storage::scaled(DType::e2m1),
                                   Storage::nested_blocks(DType::e2m1, 16),
                                   Precision::nvfp4().storage.activation_gradients};
  for (std::size_t i = 0; i < Formats::size; ++i) storages.push_back(static_cast<DType>(i));
  for (const Storage& from : storages)
    for (const Storage& to : storages)
      for (const Shape& shape : shapes)
        test::check_kernels({Cast(to),
                             {shape},
                             {from, to},
                             {test::random_values(shape.elements(), 6, -300, 300)},
                             elementwise([](double x) { return x; })});
}

TEST(PointwiseKernels, NormalizeByChannel) {
  for (const auto& [from, divisor] : {std::pair{DType::u8, 255.0f}, {DType::f32, 1.0f}, {DType::f16, 1.0f}})
    for (const Storage& to : {Storage(DType::f32), Storage(DType::f16), Storage(DType::bf16), Storage(DType::sign)})
      for (std::int64_t c : {1, 3, 4, 1500}) {
        const Shape shape{2, 3, 1300 / c + 1, c};
        const Normalize op(test::random_values(c, 7), test::random_values(c, 8, 0.1f, 3));
        const auto reference = [&, divisor = divisor](const std::vector<Doubles>& in) {
          Doubles y;
          for (std::size_t i = 0; i < in[0].size(); ++i) {
            const std::size_t k = i % static_cast<std::size_t>(c);
            const float shifted = static_cast<float>(in[0][i]) / divisor - op.mean[k];
            y.push_back(static_cast<double>(shifted / op.stddev[k]));
          }
          return std::vector<Doubles>{y};
        };
        test::check_kernels({op, {shape}, {from, to}, {test::random_integers(shape.elements(), 9, 0, 255)}, reference});
      }
}

TEST(RandomKernels, DropoutKeepsWhatItsStreamSays) {
  const Dropout op(0.3f, 5);
  StepState state;
  state.seed = 0x123456789abcULL;
  state.steps = 0x100000007;
  const auto reference = [&](const std::vector<Doubles>& in) {
    Doubles y;
    const float factor = 1 / (1 - 0.3f);
    for (std::size_t i = 0; i < in[0].size(); ++i)
      y.push_back(uniform(state.seed, static_cast<std::uint64_t>(state.steps), 5, i) >= 0.3f
                      ? in[0][i] * static_cast<double>(factor)
                      : 0);
    return std::vector<Doubles>{y};
  };
  for (const auto& storages : test::storage_choices)
    for (const Shape& shape : shapes)
      test::check_kernels({op, {shape}, storages, {test::random_values(shape.elements(), 10)}, reference, {}, state});
}

TEST(RandomKernels, QuantizeRoundsToItsGrid) {
  StepState state;
  state.steps = 9;
  for (Rounding rounding : {Rounding::nearest, Rounding::stochastic, Rounding::toward_zero})
    for (const Grid& grid : {Grid::fixed(4, 6, rounding), Grid::floating(5, 2, rounding), Grid::power_of_two(rounding),
                             Grid::binary(rounding)}) {
      const auto reference = [&](const std::vector<Doubles>& in) {
        Doubles y;
        for (std::size_t i = 0; i < in[0].size(); ++i)
          y.push_back(static_cast<double>(grid(static_cast<float>(in[0][i]), uniform(state.seed, 9, 11, i))));
        return std::vector<Doubles>{y};
      };
      const Quantize op(grid, 11);
      for (const auto& storages : test::storage_choices)
        test::check_kernels(
            {op, {{3, 5, 7, 11}}, storages, {test::random_values(1155, 12, -20, 20)}, reference, {}, state});
    }
}

TEST(ChannelKernels, ConcatJoinsRows) {
  const Concat op;
  for (const auto& storages : test::storage_choices)
    for (const std::vector<std::int64_t>& channels : {std::vector<std::int64_t>{3}, {1, 5, 2}, {64, 1100}}) {
      const auto reference = [&](const std::vector<Doubles>& in) {
        Doubles y;
        for (std::int64_t row = 0; row < 30; ++row)
          for (std::size_t i = 0; i < in.size(); ++i)
            y.insert(y.end(), in[i].begin() + row * channels[i], in[i].begin() + (row + 1) * channels[i]);
        return std::vector<Doubles>{y};
      };
      KernelTest test{op, {}, storages, {}, reference};
      for (std::int64_t c : channels) {
        test.shapes.push_back({2, 3, 5, c});
        test.values.push_back(test::random_values(30 * c, static_cast<unsigned>(c)));
      }
      test::check_kernels(test);
    }
}

TEST(ChannelKernels, SliceTakesChannels) {
  for (const auto& storages : test::storage_choices)
    for (const auto& [first, count, c] : {std::array<std::int64_t, 3>{0, 3, 3}, {2, 3, 7}, {40, 1200, 1250}}) {
      const Slice op(first, count);
      const auto reference = [&, first = first, count = count, c = c](const std::vector<Doubles>& in) {
        Doubles y;
        for (std::int64_t row = 0; row < 30; ++row)
          y.insert(y.end(), in[0].begin() + row * c + first, in[0].begin() + row * c + first + count);
        return std::vector<Doubles>{y};
      };
      test::check_kernels({op, {{2, 3, 5, c}}, storages, {test::random_values(30 * c, 13)}, reference});
    }
}

}  // namespace
}  // namespace halftone

#include "kernels/cpu/xnor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <set>

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
    for (const bool counting : {false, isa >= Isa::avx512 && counts_bits()}) {
      SCOPED_TRACE(std::string(name_of(isa)) + (counting ? ", counting" : ""));
      f(xnor_loops(isa, counting), isa);
    }
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

/// To who takes padding for signs the border differs, and nothing else does: there it has an odd number of products.
TEST(Xnor, PaddingIsNoSign) {
  Signs signs(problems[3]);
  std::fill(signs.bias.begin(), signs.bias.end(), 0.0f);
  const ConvProblem& p = signs.problem;
  const auto count = static_cast<std::size_t>(p.n * p.p * p.q * p.k);
  for_loops([&](const XnorLoops& loops, Isa isa) {
    const auto bytes = run(xnor(signs.convolution(DType::f32), loops, isa, 1), signs, count * sizeof(float));
    Numbers y(count);
    std::memcpy(y.data(), bytes.data(), bytes.size());
    for (const int padding : {-1, 1}) {
      const auto sums = signs.sums(padding);
      for (std::size_t i = 0; i < count; ++i) {
        const auto pixel = static_cast<std::int64_t>(i) / p.k, h = pixel / p.q % p.p, w = pixel % p.q;
        const bool inside = h > 0 && h + 1 < p.p && w > 0 && w + 1 < p.q;
        ASSERT_EQ(y[i] == static_cast<float>(sums[i]), inside) << "pixel " << h << ", " << w << ", padding " << padding;
      }
    }
  });
}

/// The signs of the library's own batch norm of x [rows, gamma's].
std::vector<std::byte> signs_of_norm(Isa isa, const NormFactor& factor, Numbers x, std::vector<Numbers> vectors) {
  const Device device = cpu_device({.threads = 1, .isa = name_of(isa)});
  const BatchNormInference norm(factor.epsilon, factor.shift_based);
  const Shape channels = Shape::vector(std::ssize(vectors[0]));
  const ValueSpec y{Shape::matrix(std::ssize(x) / channels.c, channels.c), DType::sign};
  const ValueSpec inputs[] = {{y.shape}, {channels}, {channels}, {channels}, {channels}};
  const Launch launch = choose_kernel({norm, inputs, {&y, 1}, device}).launch;
  std::vector<Memory> memory = {{x.data()}};
  for (Numbers& numbers : vectors) memory.push_back({numbers.data()});
  std::vector<std::byte> signs(y.tensor().bytes()), workspace(launch.workspace);
  const Memory output{signs.data()};
  StepState state;
  launch.run({memory, {&output, 1}, workspace.data(), &state});
  return signs;
}

TEST(Xnor, FoldsNormAndSignExactly) {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float odd[] = {0, -0.0f, 1e-40f, -1e-40f, 3e38f, -3e38f, inf, -inf, nan};
  for (const ConvProblem& problem : problems) {
    const Signs usual(problem);
    const auto sums = usual.sums();
    const auto k = static_cast<std::size_t>(problem.k);
    for (const NormFactor& factor : {NormFactor{1e-5f, false}, {0, false}, {1e-5f, true}, {0, true}})
      for (unsigned round = 0; round < 6; ++round) {
        Signs signs = usual;
        std::mt19937 random(round);
        std::normal_distribution<float> normal;
        Numbers gamma(k), beta(k), mean(k), variance(k);
        std::size_t on_the_edge = 0;
        for (std::size_t i = 0; i < k; ++i) {
          gamma[i] = normal(random);
          beta[i] = normal(random) * (i % 5 == 1 ? 1000.0f : 1.0f);
          // Every other mean is a sum that occurs plus the bias, so that the norm is 0 or a rounding away from it.
          mean[i] = i % 2 ? static_cast<float>(sums[i]) + signs.bias[i] : 10 * normal(random);
          if (i % 4 == 1) beta[i] = i % 8 == 1 ? 0 : -1e-30f;
          variance[i] = std::abs(normal(random)) * 100;
          on_the_edge += static_cast<float>(sums[i]) + signs.bias[i] == mean[i];
          // In all rounds but the first one or two of a channel's numbers are odd ones.
          Numbers* const vectors[] = {&gamma, &beta, &mean, &variance, &signs.bias};
          for (unsigned strange = 0; strange < std::min(round, 2u); ++strange)
            (*vectors[random() % 5])[i] = odd[random() % std::size(odd)];
        }
        EXPECT_GT(on_the_edge, 0u);
        Numbers x;
        for (std::size_t i = 0; i < sums.size(); ++i) x.push_back(static_cast<float>(sums[i]) + signs.bias[i % k]);
        Convolution convolution = signs.convolution(DType::sign);
        for (int i = 0; i < 4; ++i) convolution.operands.inputs.push_back({Shape::vector(problem.k)});
        for_loops([&](const XnorLoops& loops, Isa isa) {
          const std::vector<Numbers> vectors = {gamma, beta, mean, variance};
          const auto bits = signs_of_norm(isa, factor, x, vectors);
          for (const int threads : {1, 3})
            EXPECT_EQ(run(xnor(convolution, loops, isa, threads, factor), signs, bits.size(), vectors), bits)
                << "k " << problem.k << ", epsilon " << factor.epsilon << ", shift-based " << factor.shift_based
                << ", round " << round;
        });
      }
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
  Convolution deep = signs;
  deep.operands.inputs[1].shape.c = 1 << 24;
  EXPECT_EQ(decline_xnor(deep), "");
  ++deep.operands.inputs[1].shape.c, ++deep.problem.c;
  EXPECT_NE(decline_xnor(deep), "");
}

TEST(Xnor, IsListedForwardAlone) {
  std::set<std::string> listed;
  for (const auto& [type, list] : cpu_device().backend().kernels().all())
    for (const Kernel& kernel : list.kernels)
      if (kernel.name == std::string("xnor")) listed.insert(list.operation);
  EXPECT_EQ(listed, (std::set<std::string>{"conv2d", "dense"}));
}

/// The output of a binary net of three convolutions and three dense layers in evaluation, all values or the output
/// kept.
std::vector<Numbers> evaluate(const Precision& precision, bool keeps_all, std::vector<std::string>& kernels,
                              bool pools_first = false) {
  Graph graph;
  Value x = graph.input("images", {5, 9, 9, 3});
  for (int i = 0; i < 3; ++i) {
    x = conv2d(x, 16, 3, {.bias = i == 1});
    if (pools_first) x = max_pool2d(x, 2, {.stride = 1});
    x = relu(batch_norm(x));
  }
  x = relu(dense(max_pool2d(x, 2), 24));
  x = dense(relu(dense(x, 40)), 7);
  const Device device = cpu_device({.threads = 2});
  const Graph net = for_evaluation(graph, x.id(), 5, precision, device);
  Parameters parameters(net, device, {.precision = precision, .gradients = false, .seed = 4});
  for (std::size_t i = 0; i < parameters.statistics.size(); ++i) {
    Numbers numbers = parameters.statistic(i).read();  // the means are integers, as sums are
    for (std::size_t j = 0; j < numbers.size(); ++j)
      numbers[j] += i % 2 ? uniform(9, 0, static_cast<std::uint32_t>(i), j) : static_cast<float>(j % 5) - 2;
    parameters.assign_statistic(i, numbers);
  }
  for (const ParameterSlot& slot : parameters.entries) {
    if (slot.name.find("norm") == std::string::npos) continue;
    constexpr float gammas[] = {1, -1, 0.3f, 1e-40f, -1e-40f, 0}, betas[] = {0, 1e-41f, -1e-41f, 0.5f, -0.5f};
    Numbers numbers(static_cast<std::size_t>(slot.shape.elements()));
    for (std::size_t j = 0; j < numbers.size(); ++j)
      numbers[j] = slot.name.ends_with(".weight") ? gammas[j % 6] : betas[j % 5];
    parameters.assign(slot, numbers);
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
  std::set<std::vector<Numbers>> outputs = {evaluate(Precision::f32(), false, other)};
  for (const Precision& precision : {Precision::binary(), Precision::binary(true)}) {
    const auto output = evaluate(precision, false, folded);
    EXPECT_EQ(count(folded, "conv2d_signs/own"), 2);
    EXPECT_EQ(count(folded, "dense_signs/own"), 1) << "a pool of signs is signs";
    EXPECT_EQ(count(folded, "dense/xnor"), 1) << "the last layer reads numbers";
    EXPECT_EQ(evaluate(precision, true, whole), output);
    EXPECT_EQ(count(whole, "signs/own"), 0) << "what is kept is computed";
    EXPECT_EQ(count(whole, "xnor"), 4);
    outputs.insert(output);
  }
  EXPECT_EQ(outputs.size(), 3u) << "three nets";
  EXPECT_EQ(count(other, "xnor"), 0);
}

/// BinaryNet's order: layer, max pool, batch norm, signs. Where gamma is negative the smallest sum counts.
TEST(Xnor, AMaxPoolBeforeTheNormIsOneOfSigns) {
  std::vector<std::string> folded, whole;
  std::set<std::vector<Numbers>> outputs;
  for (const Precision& precision : {Precision::binary(), Precision::binary(true)}) {
    const auto output = evaluate(precision, false, folded, true);
    EXPECT_EQ(std::ranges::count(folded, "conv2d_signs/own"), 2);
    EXPECT_EQ(std::ranges::count(folded, "flip_signs/own"), 2);
    EXPECT_EQ(evaluate(precision, true, whole, true), output);
    EXPECT_EQ(std::ranges::count(whole, "flip_signs/own"), 0);
    outputs.insert(output);
  }
  EXPECT_EQ(outputs.size(), 2u) << "shift-based norms are others";
  EXPECT_EQ(std::ranges::count_if(whole, [](const auto& name) { return name.starts_with("batch_norm_inference"); }), 5)
      << "a norm behind a pool is the layer's";
}

TEST(Xnor, FoldsOnlyWhatIsALayerItsNormAndItsSigns) {
  struct Case {
    const char* what;
    std::function<Value(Value)> signs;  // of x, which is signs
    int folded = 0;
    Precision precision = Precision::f32();
  };
  const auto signs = [](Value x) { return cast(x, DType::sign); };
  const auto layer = [](Value x, std::int64_t filters = 16) { return dense(x, filters); };
  Precision separate = Precision::f32(), half = Precision::f32();
  separate.fuses = false;
  half.storage.activations = DType::f16;
  const Case cases[] = {
      {"a layer, its norm and its signs", [&](Value x) { return signs(batch_norm(layer(x))); }, 1},
      {"shift-based", [&](Value x) { return signs(batch_norm(layer(x), {.shift_based = true})); }, 1},
      {"hard tanh keeps signs", [&](Value x) { return signs(hard_tanh(batch_norm(layer(x)))); }, 1},
      {"also by itself", [&](Value x) { return signs(hard_tanh(batch_norm(layer(x)))); }, 1, separate},
      {"no norm", [&](Value x) { return signs(layer(x)); }},
      {"relu joined to the norm", [&](Value x) { return signs(relu(batch_norm(layer(x)))); }},
      {"relu by itself", [&](Value x) { return signs(relu(batch_norm(layer(x)))); }, 0, separate},
      {"an activation joined to the layer", [&](Value x) { return signs(batch_norm(relu(layer(x)))); }},
      {"filters of no whole byte", [&](Value x) { return signs(batch_norm(layer(x, 12))); }},
      {"f16 between norm and sign", [&](Value x) { return signs(batch_norm(layer(x))); }, 0, half},
      {"stochastic signs",
       [&](Value x) {
         return cast(batch_norm(layer(x)), {DType::sign, Rounding::stochastic});
       }},
      {"a second reader of the norm",
       [&](Value x) {
         const Value norm = batch_norm(layer(x));
         return concat({signs(norm), cast(norm, DType::f32)});
       }},
      {"a second reader of the layer", [&](Value x) {
         const Value y = layer(x);
         return concat({signs(batch_norm(y)), cast(y, DType::f32)});
       }}};
  const Device device = cpu_device({.threads = 2});
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    Graph graph;
    const Value output = dense(c.signs(signs(graph.input("x", {7, 1, 1, 40}))), 5);
    const Precision precision = with_signs(c.precision, {"dense1.weight"});
    const Graph net = for_evaluation(graph, output.id(), 7, precision, device);
    Parameters parameters(net, device, {.precision = precision, .gradients = false, .seed = 3});
    for (const ParameterSlot& slot : parameters.entries) {
      if (slot.name.find("norm") == std::string::npos) continue;
      Numbers numbers(static_cast<std::size_t>(slot.shape.elements()));  // as many norms are almost 0 as are not
      for (std::size_t j = 0; j < numbers.size(); ++j)
        numbers[j] = slot.name.ends_with(".bias") ? (j % 2 ? -1e-9f : 0) : (j % 4 < 2 ? 0 : 1.0f);
      parameters.assign(slot, numbers);
    }
    std::vector<int> all, last = {output.id()};
    for (const Node& node : net->nodes) all.push_back(node.outputs[0]);
    const Plan plan(net, parameters, last), whole(net, parameters, all);
    for (const Plan* one : {&plan, &whole}) {
      Numbers x(7 * 40);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = uniform(8, 0, 0, i) - 0.5f;
      one->view(net->inputs[0]).write(x);
      one->run();
    }
    EXPECT_EQ(plan.view(output.id()).read(), whole.view(output.id()).read());
    int folded = 0, counted = 0;
    for (const auto& report : plan.kernels()) {
      folded += report.kernel == "dense_signs/own";
      counted += report.kernel == "dense/xnor";
    }
    EXPECT_EQ(folded, c.folded);
    EXPECT_EQ(counted, 1 - c.folded) << "the layer is one of signs all the same";
  }
}

}  // namespace
}  // namespace halftone::cpu

#include "kernels/cuda/agreement.hpp"

#include <gtest/gtest.h>

#include "halftone/graph/core_ops.hpp"
#include "halftone/tensor/device.hpp"
#include "kernels/cuda/scratch.hpp"
#include "kernels/cuda/table.hpp"

// What other ways to do a convolution are held to.
namespace halftone::cuda {
namespace {

Convolution some(Direction direction, DType type) {
  const ConvProblem problem{.n = 2,
                            .h = 7,
                            .w = 6,
                            .c = 8,
                            .k = 16,
                            .r = 3,
                            .s = 3,
                            .p = 4,
                            .q = 3,
                            .stride_h = 2,
                            .stride_w = 2,
                            .pad_h = 1,
                            .pad_w = 1,
                            .groups = 2};
  const ValueSpec x{{2, 7, 6, 8}, type}, weight{{16, 3, 3, 4}, type}, y{{2, 4, 3, 16}, type};
  if (direction == Direction::forward) return {problem, direction, {{x, weight}, y}};
  if (direction == Direction::d_input) return {problem, direction, {{y, weight}, x}};
  return {problem, direction, {{x, y}, weight}};
}

Driver& driver() {
  static const Device device = cuda_device();
  return *static_cast<Driver*>(device.backend().stream());
}

Convolution finished() {
  Convolution convolution = some(Direction::forward, DType::f16);
  convolution.operands.inputs.push_back({{1, 1, 1, 16}, DType::f32});
  convolution.activation = Relu();
  return convolution;
}

TEST(Agreement, HoldsWhereAnotherKernelIsRight) {
  for (const Direction direction : {Direction::forward, Direction::d_input, Direction::d_weight}) {
    for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
      const Convolution convolution = some(direction, type);
      EXPECT_EQ(Agreement(driver(), convolution).differs(plain(convolution)), "") << name_of(type);
    }
  }
  EXPECT_EQ(Agreement(driver(), finished()).differs(plain(finished())), "");
}

TEST(Agreement, FindsWhatIsWrong) {
  for (const Direction direction : {Direction::forward, Direction::d_input, Direction::d_weight}) {
    const Convolution convolution = some(direction, DType::f16);
    const Agreement agreement(driver(), convolution);
    EXPECT_EQ(agreement.differs({.run = [](const Arguments&) {}}), "it multiplies integers wrongly");

    Convolution shifted = convolution;
    shifted.problem.pad_w = 0;
    EXPECT_EQ(agreement.differs(plain(shifted)), "it multiplies integers wrongly");

    Launch only_twice = plain(convolution);
    only_twice.run = [run = only_twice.run, calls = 0](const Arguments& a) mutable {
      if (calls++ < 2) run(a);
    };
    EXPECT_EQ(agreement.differs(only_twice), "it does not let infinity and NaN through");
  }
  Convolution no_bias = finished(), no_activation = finished();
  no_bias.operands.inputs.pop_back();
  no_activation.activation.reset();
  const Agreement agreement(driver(), finished());
  EXPECT_EQ(agreement.differs(plain(no_bias)), "it multiplies integers wrongly");
  EXPECT_EQ(agreement.differs(plain(no_activation)), "it multiplies integers wrongly");
}

/// The weight gradients of the two images, each stored before they are added: sums that are not in f32 all the way.
Launch by_image(const Convolution& both) {
  Convolution one = both;
  one.problem.n = 1;
  for (ValueSpec& input : one.operands.inputs) input.shape.n = 1;
  const Launch gradient = plain(one);
  const Add op;
  const ValueSpec parts[] = {both.operands.output, both.operands.output};
  const Launch sum = add({op, parts, std::span(parts).first(1), cpu_device()});
  const std::size_t bytes = both.operands.output.tensor().bytes();
  const auto run = [=](const Arguments& a) {
    Driver& on = driver();
    const Scratch first(on, bytes), second(on, bytes);
    const Memory results[] = {{first.data()}, {second.data()}};
    for (std::size_t image = 0; image < 2; ++image) {
      std::vector<Memory> inputs(a.inputs.begin(), a.inputs.end());
      for (std::size_t i = 0; i < inputs.size(); ++i)
        inputs[i].data = static_cast<std::byte*>(inputs[i].data) + image * one.operands.inputs[i].tensor().bytes();
      Arguments arguments = a;
      arguments.inputs = inputs;
      arguments.outputs = std::span(results).subspan(image, 1);
      gradient.run(arguments);
    }
    Arguments arguments = a;
    arguments.inputs = results;
    sum.run(arguments);
    on.synchronize();
  };
  return {.run = run};
}

TEST(Agreement, FindsShortSums) {
  const auto differs = [](DType type) {
    const Convolution convolution = some(Direction::d_weight, type);
    return Agreement(driver(), convolution).differs(by_image(convolution));
  };
  EXPECT_EQ(differs(DType::f32), "");
  EXPECT_EQ(differs(DType::f16), "it does not keep sums in f32");
  EXPECT_EQ(differs(DType::bf16), "it does not keep sums in f32");
}

}  // namespace
}  // namespace halftone::cuda

#include "tests/train/check_gradient_nets.hpp"

namespace halftone::test {
namespace {

/// Image and batch are as small as the nets allow: behind each batch norm lie eight values a channel. Their deviation
/// is below t of its usual one with probability near t^7, so among the 2,560 channels that have no more, in resnet18's
/// last stage, the least is about a third of it, and steps of at most 1/16 do not reach that far. With two values it
/// would be 1/2560: outputs are 1 or -1, and nothing but a step between.
struct Case {
  const char* name;
  int batch, extent;
  int directions;  ///< the first leans towards the gradient
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class CheckGradientOf : public testing::TestWithParam<Case> {};

TEST_P(CheckGradientOf, PassesInTwentySeeds) {
  const auto& [name, batch, extent, directions] = GetParam();
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const auto report = CheckedNet(name, batch, extent, seed).check(seed, directions);
    EXPECT_TRUE(report.passed()) << "seed " << seed << '\n' << text_of(report);
  }
}

/// A tensor's fault does not reach the others' gradients, so all of them can be wrong at once; one direction is enough.
TEST_P(CheckGradientOf, FindsEveryTensorThatIsOffByOnePercent) {
  const Case& c = GetParam();
  CheckedNet net(c.name, c.batch, c.extent, 1);
  const std::size_t count = net.graph->parameters.size();
  for (std::size_t i = 0; i < count; ++i) net.distort(i, 1.01f);
  const auto report = net.check(1, 1);
  for (const auto& tensor : report.tensors) EXPECT_GT(tensor.relative_error, report.tolerance) << tensor.name;
}

INSTANTIATE_TEST_SUITE_P(Nets, CheckGradientOf,
                         testing::Values(Case{"lenet5", 2, 28, 2}, Case{"gupta", 2, 28, 2}, Case{"mlp", 2, 28, 2},
                                         Case{"resnet20", 2, 8, 2}, Case{"resnet18", 8, 8, 1}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace halftone::test

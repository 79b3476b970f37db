#include "tests/train/check_gradient_nets.hpp"

namespace halftone::test {
namespace {

/// Image and batch are as small as the nets allow.
constexpr struct {
  const char* name;
  int batch, extent;
} nets[] = {{"lenet5", 2, 28}, {"gupta", 2, 28}, {"mlp", 2, 28}, {"resnet20", 2, 8}, {"resnet18", 2, 8}};

TEST(CheckGradient, PassesAllNetsInTwentySeeds) {
  for (const auto& [name, batch, extent] : nets)
    for (unsigned seed = 1; seed <= 20; ++seed) {
      const auto report = CheckedNet(name, batch, extent, seed).check(seed, 2);
      EXPECT_TRUE(report.passed()) << name << ", seed " << seed << '\n' << text_of(report);
    }
}

TEST(CheckGradient, FindsAnyGradientOfAResnetThatIsOffByOnePercent) {
  const std::size_t count = CheckedNet("resnet20", 2, 8, 1).graph->parameters.size();
  for (std::size_t wrong = 0; wrong < count; ++wrong) {
    CheckedNet net("resnet20", 2, 8, 1);
    net.distort(wrong, 1.01f);
    const auto report = net.check(1, 2);
    EXPECT_GT(report.tensors[wrong].relative_error, report.tolerance) << text_of(report);
  }
}

}  // namespace
}  // namespace halftone::test

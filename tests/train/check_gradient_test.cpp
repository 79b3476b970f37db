#include "tests/train/check_gradient_nets.hpp"

namespace halftone::test {
namespace {

TEST(CheckGradient, PassesNetsFullOfKinks) {
  const CheckedNet nets[] = {{"lenet5", 2, 28, 1}, {"gupta", 2, 28, 1}};
  for (const CheckedNet& net : nets)
    for (std::uint64_t seed : {1, 2}) {
      const auto report = net.check(seed, 2);
      EXPECT_TRUE(report.passed()) << text_of(report);
    }
}

TEST(CheckGradient, FindsAnyGradientThatIsOffByOnePercent) {
  const std::size_t count = CheckedNet("lenet5", 1, 16, 1).graph->parameters.size();
  for (std::size_t wrong = 0; wrong < count; ++wrong) {
    CheckedNet net("lenet5", 1, 16, 1);
    net.distort(wrong, 1.01f);
    const auto report = net.check(1, 2);
    for (std::size_t i = 0; i < count; ++i)
      EXPECT_EQ(report.tensors[i].relative_error > report.tolerance, i == wrong) << i << '\n' << text_of(report);
  }
}

}  // namespace
}  // namespace halftone::test

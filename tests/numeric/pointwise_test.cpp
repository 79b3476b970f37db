#include "halftone/numeric/pointwise.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

namespace halftone {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr double pi = 3.14159265358979324;

double normal_distribution(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

using Definition = double (*)(double);

/// Each activation's definition, in double.
const std::map<std::string, Definition> exact = {
    {"relu", [](double x) { return std::max(x, 0.0); }},
    {"leaky_relu", [](double x) { return x < 0 ? double{0.01f} * x : x; }},
    {"gelu", [](double x) { return x * normal_distribution(x); }},
    {"gelu_tanh", [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / pi) * (x + 0.044715 * x * x * x))); }},
    {"silu", [](double x) { return x * sigmoid(x); }},
    {"sigmoid", sigmoid},
    {"tanh", [](double x) { return std::tanh(x); }},
    {"relu6", [](double x) { return std::clamp(x, 0.0, 6.0); }},
    {"hard_sigmoid", [](double x) { return std::clamp(x / 6 + 0.5, 0.0, 1.0); }},
    {"hard_swish", [](double x) { return x * std::clamp(x / 6 + 0.5, 0.0, 1.0); }},
    {"hard_tanh", [](double x) { return std::clamp(x, -1.0, 1.0); }},
};

/// Null where there is none, which is a failure.
Definition definition_of(const char* name) {
  const auto found = exact.find(name);
  if (found != exact.end()) return found->second;
  ADD_FAILURE() << name << " has no definition here";
  return nullptr;
}

template <class Check>
void for_each_activation(Check check) {
  for (std::size_t i = 0; i < Activations::size; ++i) visit_type(Activations{}, i, check);
}

// 1 + erf, 1 + tanh cancel on the left: the error is 4 ulp of 1, times x.
TEST(Activations, FollowTheirDefinitions) {
  for_each_activation([](auto f) {
    const Definition definition = definition_of(f.name);
    if (!definition) return;
    for (float x = -12; x <= 12; x += 0.0137f) {
      EXPECT_NEAR(f.value(x), definition(x), 4 * 0x1p-23 * std::max(1.0f, std::abs(x))) << f.name << ' ' << x;
    }
  });
}

// The central difference in double is good to h^2 times the third derivative, below 3 for all of them.
TEST(Activations, SlopesAreTheDerivatives) {
  for_each_activation([](auto f) {
    constexpr double h = 1e-4;
    const Definition definition = definition_of(f.name);
    if (!definition) return;
    for (float x = -9.9713f; x <= 10; x += 0.0137f) {
      const double slope = (definition(x + h) - definition(x - h)) / (2 * h);
      const float ours = f.slope(f.slope_from_output ? f.value(x) : x);
      EXPECT_NEAR(ours, slope, 3 * h * h + 16 * 0x1p-23 * std::max(1.0f, std::abs(x))) << f.name << ' ' << x;
    }
  });
}

TEST(Activations, LetNanThrough) {
  for_each_activation([](auto f) { EXPECT_TRUE(std::isnan(f.value(std::nanf("")))) << f.name; });
}

TEST(Activations, EndAtTheirLimits) {
  EXPECT_EQ(Relu{}.value(infinity), infinity);
  EXPECT_EQ(Relu{}.value(-infinity), 0);
  EXPECT_EQ(LeakyRelu{0.5f}.value(-2), -1);
  EXPECT_EQ(LeakyRelu{0.0f}.value(-2), 0);
  EXPECT_EQ(LeakyRelu{0.0f}.value(infinity), infinity);
  EXPECT_EQ(Sigmoid{}.value(infinity), 1);
  EXPECT_EQ(Sigmoid{}.value(-infinity), 0);
  EXPECT_GT(Sigmoid{}.value(-100), 0);
  EXPECT_EQ(Silu{}.value(1e30f), 1e30f);
  EXPECT_EQ(Gelu{}.value(1e30f), 1e30f);
  EXPECT_EQ(GeluTanh{}.value(100), 100);
  EXPECT_EQ(Relu{}.slope(0), 0);
  EXPECT_EQ(HardTanh{}.slope(1), 0);
}

TEST(Activations, AreFoundByName) {
  for_each_activation([](auto f) {
    const auto found = parse_activation(f.name);
    ASSERT_TRUE(found.has_value());
    EXPECT_TRUE(std::holds_alternative<decltype(f)>(*found));
    EXPECT_EQ(name_of(*found), std::string(f.name));
  });
  EXPECT_EQ(Activations::size, exact.size());
  EXPECT_FALSE(parse_activation("reluu").has_value());
}

}  // namespace
}  // namespace halftone

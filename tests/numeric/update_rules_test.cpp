#include "halftone/numeric/update_rules.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/numeric/type_lists.hpp"

namespace halftone {
namespace {

/// Runs a rule on one weight; gradients follow the weight, so that errors would show in later steps.
template <class Rule>
std::vector<double> run(const Rule& rule, float learning_rate, int steps) {
  float w = 1.5f, slot0 = 0, slot1 = 0;
  std::vector<double> weights;
  for (int step = 1; step <= steps; ++step) {
    const float g = 0.3f * w + std::sin(static_cast<float>(step));
    w = rule.apply(rule.at(learning_rate, step), w, g, slot0, slot1);
    weights.push_back(w);
  }
  return weights;
}

/// torch.optim.SGD's published algorithm in double: the momentum buffer starts as the first gradient.
std::vector<double> sgd_model(double lr, double momentum, double decay, bool nesterov, int steps) {
  double w = 1.5, buffer = 0;
  std::vector<double> weights;
  for (int step = 1; step <= steps; ++step) {
    double g = 0.3 * w + std::sin(static_cast<float>(step)) + decay * w;
    if (momentum != 0) {
      buffer = step == 1 ? g : momentum * buffer + g;
      g = nesterov ? g + momentum * buffer : buffer;
    }
    weights.push_back(w -= lr * g);
  }
  return weights;
}

/// torch.optim.Adam's and AdamW's published algorithms in double.
std::vector<double> adam_model(double lr, double beta1, double beta2, double epsilon, double decay, bool decoupled,
                               int steps) {
  double w = 1.5, m = 0, v = 0;
  std::vector<double> weights;
  for (int step = 1; step <= steps; ++step) {
    double g = 0.3 * w + std::sin(static_cast<float>(step));
    if (decoupled) {
      w -= lr * decay * w;
    } else {
      g += decay * w;
    }
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const double m_hat = m / (1 - std::pow(beta1, step)), v_hat = v / (1 - std::pow(beta2, step));
    weights.push_back(w -= lr * m_hat / (std::sqrt(v_hat) + epsilon));
  }
  return weights;
}

/// A step rounds about ten times, each by at most half an ulp of numbers up to 2; the walks are contractive.
void expect_close(const std::vector<double>& ours, const std::vector<double>& model) {
  ASSERT_EQ(ours.size(), model.size());
  for (std::size_t i = 0; i < ours.size(); ++i) ASSERT_NEAR(ours[i], model[i], 10 * 0x1p-23 * (i + 1)) << i;
}

TEST(Sgd, FollowsTorch) {
  for (const float momentum : {0.0f, 0.9f}) {
    for (const float decay : {0.0f, 0.01f}) {
      for (const bool nesterov : {false, true}) {
        const Sgd rule{.momentum = momentum, .weight_decay = decay, .nesterov = nesterov};
        expect_close(run(rule, 0.05f, 100), sgd_model(0.05f, momentum, decay, nesterov, 100));
        EXPECT_EQ(rule.slot_count(), momentum == 0 ? 0 : 1);
      }
    }
  }
}

TEST(Sgd, DecoupledDecayShrinksTheWeightAlone) {
  const Sgd rule{.momentum = 0.9f, .weight_decay = 0.5f, .decoupled = true};
  float slot0 = 0, slot1 = 0;
  EXPECT_EQ(rule.apply(rule.at(0.5f, 1), 4.0f, 0.0f, slot0, slot1), 3.0f);
  EXPECT_EQ(slot0, 0);
}

TEST(Adam, FollowsTorch) {
  for (const float decay : {0.0f, 0.01f}) {
    for (const bool decoupled : {false, true}) {
      const Adam rule{.weight_decay = decay, .decoupled = decoupled};
      expect_close(run(rule, 0.01f, 300), adam_model(0.01f, 0.9, 0.999, 1e-8f, decay, decoupled, 300));
    }
  }
  expect_close(run(Adam{.beta1 = 0.25, .beta2 = 0.5}, 0.01f, 100), adam_model(0.01f, 0.25, 0.5, 1e-8f, 0, false, 100));
}

/// torch.optim.Adamax's published algorithm in double; `shift` rounds step size and norm by their logarithms.
std::vector<double> adamax_model(double lr, double beta1, double beta2, double decay, bool shift, int steps) {
  const auto rounded = [&](double x) { return shift ? std::exp2(std::round(std::log2(x))) : x; };
  double w = 1.5, m = 0, u = 0;
  std::vector<double> weights;
  for (int step = 1; step <= steps; ++step) {
    const double g = 0.3 * w + std::sin(static_cast<float>(step)) + decay * w;
    m = beta1 * m + (1 - beta1) * g;
    u = std::max(beta2 * u, std::abs(g) + 1e-8);
    weights.push_back(w -= rounded(lr / (1 - std::pow(beta1, step))) * m / rounded(u));
  }
  return weights;
}

TEST(AdaMax, FollowsTorch) {
  for (const float decay : {0.0f, 0.01f})
    expect_close(run(AdaMax{.weight_decay = decay}, 0.01f, 300), adamax_model(0.01f, 0.9, 0.999, decay, false, 300));
  expect_close(run(AdaMax{.beta1 = 0.25, .beta2 = 0.5}, 0.01f, 100), adamax_model(0.01f, 0.25, 0.5, 0, false, 100));
}

TEST(AdaMax, ShiftsMultiplyByPowersOfTwo) {
  const AdaMax shift{.shift = true};
  expect_close(run(shift, 0x1p-6f, 300), adamax_model(0x1p-6, 0.9, 0.999, 0, true, 300));
  EXPECT_NE(run(shift, 0x1p-6f, 300), run(AdaMax{}, 0x1p-6f, 300));  // the control
  for (const float x : {0x1p-30f, 0.7f, 1.0f, 1.41421354f, 1.41421366f, 3.0f, 1e30f})
    EXPECT_EQ(math::nearest_power_of_two(x), std::exp2(std::round(std::log2(double{x})))) << x;
}

TEST(Adam, TheFirstStepIsTheLearningRateWhateverTheGradient) {
  for (const float g : {1e-3f, 1.0f, 1e3f}) {
    float slot0 = 0, slot1 = 0;
    EXPECT_NEAR(Adam{}.apply(Adam{}.at(0.125f, 1), 1.0f, -g, slot0, slot1), 1.125f, 0x1p-21 + 0.125 * 1e-8 / g) << g;
  }
}

TEST(Adam, BiasCorrectionsVanishInTime) {
  const Adam::Coefficients c = Adam{}.at(0.001f, 10'000'000);
  EXPECT_EQ(c.step_size, 0.001f);
  EXPECT_EQ(c.correction2, 1.0f);
}

template <class Rule>
struct EveryUpdateRule : testing::Test {};
TYPED_TEST_SUITE(EveryUpdateRule, test::TypesOf<UpdateRules>);

TYPED_TEST(EveryUpdateRule, IsFoundByItsName) {
  const auto found = parse_update_rule(TypeParam::name);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(std::holds_alternative<TypeParam>(*found));
}

TYPED_TEST(EveryUpdateRule, LeavesAWeightAloneWhereNothingPulls) {
  TypeParam rule;
  if constexpr (requires { rule.weight_decay; }) rule.weight_decay = 0;
  for (const std::int64_t step : {1, 2, 1000}) {
    float slot0 = 0, slot1 = 0;
    EXPECT_EQ(rule.apply(rule.at(0.5f, step), -1.5f, 0.0f, slot0, slot1), -1.5f) << step;
  }
}

TEST(UpdateRules, AreFoundByName) {
  EXPECT_TRUE(std::holds_alternative<Sgd>(*parse_update_rule("sgd")));
  EXPECT_FALSE(std::get<Adam>(*parse_update_rule("adam")).decoupled);
  EXPECT_TRUE(std::get<Adam>(*parse_update_rule("adamw")).decoupled);
  EXPECT_EQ(std::get<Adam>(*parse_update_rule("adamw")).weight_decay, 0.01f);
  EXPECT_FALSE(std::get<AdaMax>(*parse_update_rule("adamax")).shift);
  EXPECT_TRUE(std::get<AdaMax>(*parse_update_rule("shift_adamax")).shift);
  EXPECT_FALSE(parse_update_rule("lamb").has_value());
}

}  // namespace
}  // namespace halftone

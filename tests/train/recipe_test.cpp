#include "halftone/train/recipe.hpp"

#include <gtest/gtest.h>

#include "halftone/tensor/error.hpp"

namespace halftone {
namespace {

Recipe with_schedule(const std::string& schedule) {
  return {.schedule = schedule, .learning_rate = 0.5f, .epochs = 10};
}

std::string message_of(const Recipe& recipe) {
  try {
    schedule_of(recipe, 100);
    update_rule_of(recipe);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(Recipe, RatesAndDecaysFollowTheOptimizer) {
  EXPECT_EQ(learning_rate_of({}), 0.05f);
  EXPECT_EQ(learning_rate_of({.optimizer = "adam"}), 0.001f);
  EXPECT_EQ(learning_rate_of({.optimizer = "adamw", .learning_rate = 0.2f}), 0.2f);
  const Sgd sgd = std::get<Sgd>(update_rule_of({}));
  EXPECT_EQ(sgd.momentum, 0.9f);
  EXPECT_EQ(sgd.weight_decay, 5e-4f);
  EXPECT_FALSE(sgd.nesterov);
  EXPECT_EQ(std::get<Adam>(update_rule_of({.optimizer = "adam"})).weight_decay, 0);
  EXPECT_FALSE(std::get<Adam>(update_rule_of({.optimizer = "adam"})).decoupled);
  EXPECT_EQ(std::get<Adam>(update_rule_of({.optimizer = "adamw"})).weight_decay, 0.01f);
  EXPECT_TRUE(std::get<Adam>(update_rule_of({.optimizer = "adamw"})).decoupled);
}

TEST(Recipe, TakesEveryUpdateRule) {
  for (std::size_t i = 0; i < UpdateRules::size; ++i) {
    const std::string name = visit_type(UpdateRules{}, i, [](auto rule) { return std::string(rule.name); });
    EXPECT_EQ(update_rule_of({.optimizer = name}).index(), i);
    EXPECT_NE(optimizer_names().find(name), std::string::npos);
  }
  EXPECT_TRUE(optimizer_names().ends_with(" or adamw"));
}

TEST(Recipe, WhatIsSetReachesTheRule) {
  const Sgd sgd = std::get<Sgd>(update_rule_of({.momentum = 0.5f, .weight_decay = 0.25f, .nesterov = true}));
  EXPECT_EQ(sgd.momentum, 0.5f);
  EXPECT_EQ(sgd.weight_decay, 0.25f);
  EXPECT_TRUE(sgd.nesterov);
  EXPECT_EQ(std::get<Adam>(update_rule_of({.optimizer = "adam", .weight_decay = 0.25f})).weight_decay, 0.25f);
}

TEST(Recipe, SchedulesCountInEpochs) {
  const Schedule step = schedule_of(with_schedule("step:2,5.5:0.25"), 100);
  EXPECT_EQ(step.at(199), 0.5f);
  EXPECT_EQ(step.at(200), 0.125f);
  EXPECT_EQ(step.at(549), 0.125f);
  EXPECT_EQ(step.at(550), 0.03125f);
  EXPECT_EQ(schedule_of(with_schedule("constant"), 100).at(12345), 0.5f);
  EXPECT_EQ(schedule_of(with_schedule("linear"), 100).at(500), 0.25f);
  EXPECT_NEAR(schedule_of(with_schedule("cosine"), 100).at(500), 0.25f, 1e-6);
  EXPECT_NEAR(schedule_of(with_schedule("exponential:0.005"), 100).at(500), 0.05f, 1e-6);
  EXPECT_EQ(schedule_of(with_schedule("one_cycle"), 100).at(250), 0.5f);
  EXPECT_EQ(schedule_of(with_schedule("one_cycle"), 100).at(1000), 0.0f);
  const Schedule triangle = schedule_of(with_schedule("one_cycle:0.2:0.5:0.25"), 100);
  EXPECT_EQ(triangle.at(0), 0.25f);
  EXPECT_EQ(triangle.at(200), 0.5f);
  EXPECT_EQ(triangle.at(600), 0.3125f);
}

TEST(Recipe, WarmsUpInEpochs) {
  Recipe recipe = with_schedule("constant");
  recipe.warmup = 1;
  EXPECT_NEAR(schedule_of(recipe, 100).at(0), 0.5f / 101, 1e-7);
  EXPECT_EQ(schedule_of(recipe, 100).at(100), 0.5f);
  recipe.warmup = 10;
  EXPECT_NE(message_of(recipe).find("warmup"), std::string::npos);
}

TEST(Recipe, GroupsAreFrozenAfterEpochsAndVectorsHaveRatesOfTheirOwn) {
  const auto groups = groups_of({.weight_decay = 0.5f, .vector_rate = 4, .freeze = {"stem:1.5", "head"}}, 100);
  ASSERT_EQ(groups.size(), 2u);  // "head" is never trained: `prepare` freezes it
  EXPECT_EQ(groups[0].scope, "stem");
  EXPECT_EQ(groups[0].until, 150);
  EXPECT_EQ(groups[1].rank, 1);
  EXPECT_EQ(groups[1].learning_rate, 4);
  EXPECT_EQ(std::get<Sgd>(*groups[1].rule).weight_decay, 0.125f);
  EXPECT_EQ(std::get<Sgd>(*groups_of({.decay_vectors = false, .vector_rate = 4}, 1)[0].rule).weight_decay, 0);
  EXPECT_TRUE(groups_of({}, 100).empty());
  for (const char* text : {"stem:", "stem:x", "stem:-1"})
    EXPECT_THROW(groups_of({.freeze = {text}}, 100), Error) << text;
}

TEST(Recipe, WrongWordsAreErrorsThatNameTheOption) {
  for (const char* schedule : {"",
                               "sometimes",
                               "step",
                               "step:",
                               "step:1",
                               "step:1:",
                               "step:x:0.1",
                               "step:1:0",
                               "step:-1:0.1",
                               "step:1,2,:0.1",
                               "step:,1:0.1",
                               "step:1,,2:0.1",
                               "step:1:1e300",
                               "step:1:1e-46",
                               "exponential:1e39",
                               "exponential:1e-60",
                               "step:1,2,3,4,5,6,7,8,9:0.1",
                               "exponential",
                               "exponential:0",
                               "exponential:-1",
                               "exponential:nan",
                               "constant:1",
                               "cosine:",
                               "one_cycle:2",
                               "one_cycle:0.2:0.1",
                               "one_cycle:0.2:0.1:0:1",
                               "one_cycle:1:0.1:0.1"})
    EXPECT_NE(message_of(with_schedule(schedule)).find("schedule"), std::string::npos) << schedule;
  const std::string unknown = message_of({.optimizer = "nobody"});
  EXPECT_NE(unknown.find("optimizer nobody"), std::string::npos);
  EXPECT_NE(unknown.find(optimizer_names()), std::string::npos);
  EXPECT_EQ(message_of({.optimizer = "adam", .momentum = 0.5f}), "momentum: adam has none");
  EXPECT_EQ(message_of({.optimizer = "adam", .nesterov = true}), "nesterov: adam has none");
  EXPECT_THROW(recipe_by_name("nothing"), Error);
}

TEST(Recipe, EveryOneInTheLibraryIsComplete) {
  for (const Recipe& recipe : recipes()) {
    EXPECT_EQ(message_of(recipe), "") << recipe.name;
    EXPECT_EQ(&recipe_by_name(recipe.name), &recipe);
    EXPECT_FALSE(recipe.net.empty() || recipe.data.empty()) << recipe.name;
  }
}

}  // namespace
}  // namespace halftone

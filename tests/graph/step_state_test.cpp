#include "halftone/graph/step_state.hpp"

#include <gtest/gtest.h>

#include <random>

namespace halftone {
namespace {

/// What a micro-batch is: its loss, and the sum of squares of its gradients if they are finite.
struct MicroBatch {
  float loss = 1;
  bool finite = true;
  double squares = 4;
  std::int64_t zeros = 0;
};

/// One launch of a training plan, without its kernels.
void play(StepState& state, const StepPolicy& policy, const MicroBatch& batch) {
  begin_micro_batch(state);
  GradientFindings found{.sum_of_squares = batch.squares, .zeros = batch.zeros};
  if (!batch.finite) found.nonfinite = 3, found.first_bad_element = 7, found.first_bad_parameter = 2;
  judge_micro_batch(state, batch.loss, found);
  decide(state, policy);
  finish_step(state, policy);
}

StepState initial(const StepPolicy& policy) {
  StepState state;
  state.scale = initial_state(policy.loss_scale);
  return state;
}

constexpr MicroBatch good = {}, overflow = {.finite = false}, not_a_number = {.loss = NAN, .finite = false};

TEST(StepState, AGoodStepCommits) {
  const StepPolicy policy{.loss_scale = LossScale::dynamic({.initial = 8}),
                          .schedule = Schedule::linear(1, 4),
                          .clip_norm = 0.5f,
                          .weights = 10};
  StepState state = initial(policy);
  play(state, policy, {.loss = 3, .squares = 4, .zeros = 5});
  EXPECT_EQ(state.commit, 1);
  EXPECT_EQ(state.steps, 1);
  EXPECT_EQ(state.attempts, 1);
  EXPECT_EQ(state.loss, 3);
  EXPECT_EQ(state.gradient_norm, 2);
  EXPECT_EQ(state.clip, 0.25f);
  EXPECT_EQ(state.learning_rate, 1);
  EXPECT_EQ(state.zero_gradient_shares, 0.5);
  EXPECT_EQ(update_factor(state, policy), 0.25f / 8);
  play(state, policy, good);
  EXPECT_EQ(state.learning_rate, 0.75f);
}

TEST(StepState, ASkippedStepCountsAsAnAttemptAlone) {
  const StepPolicy policy{.loss_scale = LossScale::dynamic({.initial = 8}), .schedule = Schedule::linear(1, 4)};
  for (const MicroBatch& bad : {overflow, not_a_number}) {
    StepState state = initial(policy);
    play(state, policy, bad);
    EXPECT_EQ(state.commit, 0);
    EXPECT_EQ(state.steps, 0);
    EXPECT_EQ(state.attempts, 1);
    EXPECT_EQ(state.used_scale, 8);
    const float after = state.outcome == static_cast<std::int32_t>(StepOutcome::overflow) ? 4 : 8;
    EXPECT_EQ(state.scale.scale, after);
    EXPECT_EQ(state.first_bad_parameter, 2);
    play(state, policy, good);
    EXPECT_EQ(state.learning_rate, 1);  // the schedule has not moved
    EXPECT_EQ(state.used_scale, after);
  }
}

TEST(StepState, GoodMicroBatchesGoOnWithoutTheBadOnes) {
  const StepPolicy policy{
      .loss_scale = LossScale::dynamic({.initial = 8, .max_consecutive_skips = 0}), .accumulate = 3, .weights = 10};
  StepState state = initial(policy);
  play(state, policy, {.loss = 1, .zeros = 4});
  EXPECT_EQ(state.micro_batch, 1);
  play(state, policy, overflow);
  EXPECT_EQ(state.scale.scale, 8);  // one step, one scale
  play(state, policy, {.loss = 3, .squares = 16, .zeros = 8});
  EXPECT_EQ(state.commit, 1);
  EXPECT_EQ(state.micro_batch, 0);
  EXPECT_EQ(state.loss_sum, 4);
  EXPECT_EQ(state.gradient_norm, 2);  // of the mean of two
  EXPECT_EQ(update_factor(state, policy), 0.5f);
  EXPECT_EQ(state.zero_gradient_shares, 12.0 / (10 * 2));
  EXPECT_EQ(state.scale.scale, 4);
  EXPECT_EQ(state.scale.stop, 0);  // nothing was skipped
  for (int i = 0; i < 3; ++i) play(state, policy, overflow);
  EXPECT_EQ(state.commit, 0);
  EXPECT_EQ(state.scale.stop, 1);  // the control
}

TEST(StepState, NothingMovesOnceAPolicyHasStoppedTraining) {
  for (int accumulate : {1, 2}) {
    LossScale brittle = LossScale::fixed(16);
    brittle.options.on_nan = OnNan::stop;
    const StepPolicy policy{.loss_scale = brittle, .accumulate = accumulate};
    StepState state = initial(policy);
    for (int i = 0; i < accumulate; ++i) play(state, policy, good);
    play(state, policy, not_a_number);
    for (int i = 1; i < accumulate; ++i) play(state, policy, good);
    ASSERT_EQ(state.scale.stop, 1);
    const StepState stopped = state;
    for (int i = 0; i < 3; ++i) play(state, policy, good);
    EXPECT_EQ(state.steps, stopped.steps);
    EXPECT_EQ(state.attempts, stopped.attempts);
    EXPECT_EQ(state.micro_batch, 0);
    EXPECT_EQ(state.commit, 0);
    EXPECT_EQ(state.good, 0);
    EXPECT_EQ(state.scale.scale, stopped.scale.scale);
  }
}

/// Random micro-batches against sums made in one go.
TEST(StepState, MatchesAModelOnRandomSequences) {
  std::mt19937 random(3);
  for (int run = 0; run < 1000; ++run) {
    const int accumulate = 1 + static_cast<int>(random() % 4);
    const StepPolicy policy{.loss_scale = LossScale::dynamic({.initial = 0x1p20f, .interval = 3}),
                            .accumulate = accumulate};
    StepState state = initial(policy);
    float scale = 0x1p20f;
    int tracker = 0;
    std::int64_t committed = 0;
    for (int step = 0; step < 20; ++step) {
      int good_ones = 0;
      double sum = 0;
      for (int i = 0; i < accumulate; ++i) {
        MicroBatch batch{.loss = static_cast<float>(random() % 16), .finite = random() % 4 != 0};
        if (batch.finite) ++good_ones, sum += batch.loss;
        play(state, policy, batch);
        ASSERT_EQ(state.used_scale, scale);
      }
      committed += good_ones > 0;
      if (good_ones == accumulate) {
        if (++tracker == 3) scale *= 2, tracker = 0;
      } else {
        scale /= 2, tracker = 0;
      }
      ASSERT_EQ(state.scale.scale, scale);
      ASSERT_EQ(state.commit, good_ones > 0);
      ASSERT_EQ(state.attempts, step + 1);
      ASSERT_EQ(state.steps, committed);
      if (good_ones > 0) {
        ASSERT_EQ(state.loss_sum, sum);
      }
    }
  }
}

}  // namespace
}  // namespace halftone

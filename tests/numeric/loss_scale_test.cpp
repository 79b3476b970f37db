#include "halftone/numeric/loss_scale.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

namespace halftone {
namespace {

/// "g" good, "o" overflow, "n" NaN in the forward pass.
StepOutcome outcome(char c) {
  return c == 'g' ? StepOutcome::good : c == 'o' ? StepOutcome::overflow : StepOutcome::nan_in_forward;
}

ScaleState play(const LossScale& loss_scale, const std::string& script) {
  ScaleState state = initial_state(loss_scale);
  for (const char c : script) state = next(loss_scale, state, outcome(c), c != 'g');
  return state;
}

std::string times(int n, char c) { return std::string(static_cast<std::size_t>(n), c); }

/// GradScaler.update() as its documentation states it.
struct GradScalerModel {
  float scale;
  float growth, backoff;
  int interval, tracker = 0;

  void update(bool found_inf) {
    if (found_inf) {
      scale *= backoff;
      tracker = 0;
    } else if (++tracker == interval) {
      if (std::isfinite(scale * growth)) scale *= growth;
      tracker = 0;
    }
  }
};

TEST(LossScale, ScriptedSequences) {
  const LossScale every3 = LossScale::dynamic({.initial = 1024, .interval = 3});
  struct Case {
    const char* script;
    float scale;
    int good_steps, consecutive_skips;
    int overflows = consecutive_skips;  ///< in a row
  };
  for (const Case& c : {Case{"", 1024, 0, 0},
                        {"gg", 1024, 2, 0},
                        {"ggg", 2048, 0, 0},
                        {"gggggg", 4096, 0, 0},
                        {"o", 512, 0, 1},
                        {"ggo", 512, 0, 1},
                        {"ggogg", 512, 2, 0},
                        {"ggoggg", 1024, 0, 0},
                        {"ooo", 128, 0, 3},
                        {"ogo", 256, 0, 1},
                        {"n", 1024, 0, 1, 0},
                        {"gnng", 1024, 2, 0},
                        {"gnggg", 2048, 1, 0},
                        {"on", 512, 0, 2, 1}}) {
    const ScaleState state = play(every3, c.script);
    EXPECT_EQ(state.scale, c.scale) << c.script;
    EXPECT_EQ(state.good_steps, c.good_steps) << c.script;
    EXPECT_EQ(state.consecutive_skips, c.consecutive_skips) << c.script;
    EXPECT_EQ(state.bad_steps, c.overflows) << c.script;
    EXPECT_EQ(state.stop, 0) << c.script;
  }
}

TEST(LossScale, ABadForwardPassCountsAsAnOverflowWhereThatIsAskedFor) {
  const LossScale as_pytorch = LossScale::dynamic({.initial = 1024, .interval = 3, .on_nan = OnNan::back_off});
  EXPECT_EQ(play(as_pytorch, "ggn").scale, 512);
  EXPECT_EQ(play(as_pytorch, "ggnggg").scale, 1024);
  EXPECT_EQ(play(LossScale::dynamic(), times(45, 'n')).scale, 65536);
}

TEST(LossScale, DefaultsAreGradScalers) {
  const LossScale usual = LossScale::dynamic();
  EXPECT_EQ(initial_state(usual).scale, 65536);
  EXPECT_EQ(play(usual, times(1999, 'g')).scale, 65536);
  EXPECT_EQ(play(usual, times(2000, 'g')).scale, 131072);
  EXPECT_EQ(play(usual, times(1999, 'g') + "o" + times(1999, 'g')).scale, 32768);
}

TEST(LossScale, TenThousandRandomSequencesMatchGradScaler) {
  std::mt19937 random(11);
  for (int run = 0; run < 10000; ++run) {
    DynamicOptions o{.initial = std::ldexp(1.0f, static_cast<int>(random() % 24)),
                     .interval = 1 + static_cast<int>(random() % 8),
                     .min = 0,
                     .max = std::numeric_limits<float>::max()};
    if (run % 4 == 0) o.growth = 1.7f, o.backoff = 0.3f;
    if (run % 5 == 0) o.initial = 0x1p126f;  // growth would reach infinity
    const LossScale loss_scale = LossScale::dynamic(o);
    GradScalerModel model{o.initial, o.growth, o.backoff, o.interval};
    ScaleState state = initial_state(loss_scale);
    const unsigned bad_of_16 = random() % 16;
    for (int step = 0; step < 64; ++step) {
      const bool bad = random() % 16 < bad_of_16;
      model.update(bad);
      state = next(loss_scale, state, bad ? StepOutcome::overflow : StepOutcome::good, bad);
      ASSERT_EQ(state.scale, model.scale) << run << ' ' << step;
      ASSERT_EQ(state.good_steps, model.tracker) << run << ' ' << step;
    }
  }
}

TEST(LossScale, StopsGrowingAtTheCeiling) {
  const LossScale low = LossScale::dynamic({.initial = 3, .interval = 1, .max = 12});
  EXPECT_EQ(play(low, "gg").scale, 12);
  EXPECT_EQ(play(low, "gggg").scale, 12);
  EXPECT_EQ(play(low, "ggggo").scale, 6);
  EXPECT_EQ(play(LossScale::dynamic({.interval = 1}), times(100, 'g')).scale, 0x1p63f);
  EXPECT_EQ(play(LossScale::dynamic({.initial = 0x1p127f, .interval = 1, .max = INFINITY}), "gg").scale, 0x1p127f);
}

TEST(LossScale, StaysOrStopsAtTheFloor) {
  const LossScale usual = LossScale::dynamic();
  EXPECT_EQ(play(usual, times(40, 'o')).scale, 0x1p-24f);
  const ScaleState at_floor = play(usual, times(1000, 'o'));
  EXPECT_EQ(at_floor.scale, 0x1p-24f);
  EXPECT_EQ(at_floor.stop, 0);
  EXPECT_EQ(at_floor.consecutive_skips, 1000);
  EXPECT_EQ(play(LossScale::dynamic({.initial = 3, .min = 2}), "o").scale, 2);
  EXPECT_EQ(play(LossScale::dynamic({.initial = 1, .min = 2}), "o").scale, 1);

  const LossScale strict = LossScale::dynamic({.initial = 4, .min = 1, .on_floor = OnFloor::stop});
  EXPECT_EQ(play(strict, "oo").stop, 0);
  EXPECT_EQ(play(strict, "ooo").stop, 1);
  EXPECT_EQ(play(strict, "ooog").stop, 1);
}

TEST(LossScale, HysteresisForgivesSomeBadSteps) {
  const LossScale patient = LossScale::dynamic({.initial = 64, .interval = 3, .hysteresis = 3});
  EXPECT_EQ(play(patient, "oo").scale, 64);
  EXPECT_EQ(play(patient, "ooo").scale, 32);
  EXPECT_EQ(play(patient, "oooo").scale, 16);
  EXPECT_EQ(play(patient, "oogoo").scale, 64);
  EXPECT_EQ(play(patient, "ggogg").good_steps, 2);
}

TEST(LossScale, PoliciesDemandAStop) {
  const LossScale brittle = LossScale::dynamic({.on_nan = OnNan::stop});
  EXPECT_EQ(play(brittle, "ooo").stop, 0);
  EXPECT_EQ(play(brittle, "on").stop, 1);
  const LossScale impatient = LossScale::dynamic({.max_consecutive_skips = 2});
  EXPECT_EQ(play(impatient, "oogoo").stop, 0);
  EXPECT_EQ(play(impatient, "ooo").stop, 1);
}

TEST(LossScale, ABadStepThatCommitsBacksOffButIsNoSkip) {
  const LossScale strict = LossScale::dynamic({.initial = 64, .hysteresis = 2, .max_consecutive_skips = 1});
  ScaleState state = initial_state(strict);
  for (int step = 0; step < 4; ++step) state = next(strict, state, StepOutcome::overflow, false);
  EXPECT_EQ(state.scale, 8);  // from the second on
  EXPECT_EQ(state.consecutive_skips, 0);
  EXPECT_EQ(state.stop, 0);
  state = next(strict, next(strict, state, StepOutcome::overflow, true), StepOutcome::overflow, true);
  EXPECT_EQ(state.stop, 1);  // the control
}

TEST(LossScale, FixedAndNoneNeverMoveButCount) {
  for (const LossScale& still : {LossScale::none(), LossScale::fixed(128)}) {
    const float scale = still.mode == LossScale::Mode::none ? 1.0f : 128.0f;
    const ScaleState state = play(still, times(3000, 'g') + "oon");
    EXPECT_EQ(state.scale, scale);
    EXPECT_EQ(state.consecutive_skips, 3);
  }
  LossScale fixed = LossScale::fixed(128);
  fixed.options.on_nan = OnNan::stop;
  EXPECT_EQ(play(fixed, "n").stop, 1);
}

}  // namespace
}  // namespace halftone

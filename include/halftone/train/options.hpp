#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "halftone/graph/precision.hpp"
#include "halftone/numeric/schedule.hpp"
#include "halftone/numeric/update_rules.hpp"

namespace halftone {

/// Parameters that lie in `scope` (`in_scope`) and whose names end with `ending` get a rule of their own.
struct ParameterGroup {
  std::string scope = {}, ending = {};
  std::optional<UpdateRule> rule = {};  ///< by default the trainer's own
  float learning_rate = 1;              ///< factor on the schedule's
  std::optional<float> limit = {};      ///< magnitude that no weight exceeds
  std::int64_t until = never;           ///< committed steps after which they are frozen
  std::optional<int> rank = {};         ///< only those of this one (`ParameterInfo`): 1 are all norms and biases
};

/// The group of all norms and biases, by `rule` without its weight decay.
ParameterGroup without_decay(UpdateRule rule);

struct TrainerOptions {
  Device device = best_device();
  Precision precision = Precision::f32();
  UpdateRule optimizer = Sgd{.momentum = 0.9f};
  Schedule schedule = Schedule::constant(0.05f);  ///< counts committed steps
  std::vector<ParameterGroup> groups = {};        ///< the first that fits counts; all others follow `optimizer`
  std::vector<std::string> frozen = {};           ///< scopes that are not trained (`freeze`)
  float clip_norm = 0;                            ///< greatest norm of all true gradients together; 0: no clipping
  int accumulate = 1;                             ///< micro-batches a step; a bad one is left out, its step goes on
  float average_decay = 0;                        ///< of a running average of the weights; 0: none
  /// Lookahead (Zhang et al. 2019): every so many steps the average moves, all the less the further the schedule is,
  /// and the weights and running statistics become it; 0: the average stays beside them.
  int lookahead = 0;
  float stress =
      1;  ///< multiplies the gradient at the loss and is divided out where the update reads it; a power of two
  std::uint64_t seed = 1;
  bool keep_values = false;  ///< all values stay readable after a step (`Trainer::plan`), each in memory of its own
  bool lockstep = false;     ///< every report comes before the next step begins, also on a device that works ahead
};

/// Throws Error naming the option that no training can have.
void check(const TrainerOptions& options);
void check(const Precision& precision);

}  // namespace halftone

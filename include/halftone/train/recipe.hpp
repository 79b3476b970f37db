#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "halftone/data/dataset.hpp"
#include "halftone/train/options.hpp"

namespace halftone {

/// A training run as plain data. What is not set follows from the optimizer.
struct Recipe {
  std::string name = {}, net = {}, data = {};
  std::string precision = "f32", optimizer = "sgd", schedule = "constant";
  std::optional<float> learning_rate = {};  ///< the schedule's peak; sgd 0.05, others 0.001
  std::optional<float> momentum = {};       ///< sgd 0.9, else the rule's own
  std::optional<float> weight_decay = {};   ///< sgd 5e-4, else the rule's own
  bool decay_vectors = true;                ///< whether it holds for norms and biases too
  float vector_rate = 1;                    ///< factor on the rate of norms and biases; divides their weight decay
  bool nesterov = false;
  double warmup = 0;  ///< epochs
  std::int64_t epochs = 5, batch = 128;
  int crop = 0, cutout = 0;                               ///< pixels
  bool reflect = false, flip = false, alternate = false;  ///< as in `LoaderOptions`
  float label_smoothing = 0;
  std::vector<float> class_weights = {};  ///< of the loss, one a class, above 0; none: all 1
  float average_decay = 0;                ///< of the averaged weights that are evaluated then; 0: none
  int lookahead = 0;                      ///< as in `TrainerOptions`
  std::string whiten = {};                ///< scope of a convolution that `whiten` gives its weights
  std::vector<std::string> freeze = {};   ///< each SCOPE or SCOPE:EPOCHS, after which it is frozen
  std::int64_t test_every = 1;            ///< epochs; the last one is tested in any case
  bool views = false;                     ///< the last test adds up the logits of `six_views`
};

/// The recipes that come with the library.
std::span<const Recipe> recipes();

/// Throws Error that lists the names.
const Recipe& recipe_by_name(std::string_view name);

float learning_rate_of(const Recipe& recipe);

/// "sgd, adam, adamax, shift_adamax or adamw": all that `optimizer` can be.
std::string optimizer_names();

/// Throws Error for an unknown optimizer and for what it does not have.
UpdateRule update_rule_of(const Recipe& recipe);

/// Norms and biases where they have a rule or rate of their own, and what is frozen after some epochs of `steps` steps.
/// Throws Error for a part of `freeze` that is no SCOPE:EPOCHS.
std::vector<ParameterGroup> groups_of(const Recipe& recipe, double steps);
/// What is frozen from the beginning (`TrainerOptions::frozen`). Throws Error likewise.
std::vector<std::string> frozen_of(const Recipe& recipe);

/// Reads `constant`, `step:EPOCH,EPOCH..:FACTOR`, `cosine`, `one_cycle`, `one_cycle:RISE:START:END`, `linear` or
/// `exponential:END`, where an epoch has `steps` steps; RISE is a share of all steps, START and END are shares of the
/// peak. Throws Error for anything else.
Schedule schedule_of(const Recipe& recipe, double steps);

}  // namespace halftone

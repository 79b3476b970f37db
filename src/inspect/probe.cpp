#include "src/inspect/probe.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace halftone {
namespace {

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * b[i];
  return sum;
}

TrainerOptions with_precision(TrainerOptions options, const Precision& precision) {
  options.precision = precision;
  options.precision.range_steps = 0;
  options.keep_values = false;
  return options;
}

}  // namespace

std::vector<std::vector<float>> truths(const Trainer& trainer) {
  std::vector<std::vector<float>> all;
  const Parameters& parameters = trainer.parameters();
  for (const ParameterSlot& slot : parameters.entries) {
    if (!slot.trainable) continue;
    all.push_back(parameters.truth(slot).read());
    if (!slot.in(Store::compensation)) continue;
    const auto kept = parameters.view(Store::compensation, slot).read();
    for (std::size_t i = 0; i < kept.size(); ++i) all.back()[i] += kept[i];
  }
  return all;
}

StepTaken take_step(Trainer& trainer, const Batch& batch, StepReport& report) {
  const auto before = truths(trainer);
  report = trainer.step(batch);
  const float inverse = 1 / trainer.parameters().read_state().gradient_scale();
  StepTaken taken;
  taken.updates = truths(trainer);
  for (std::size_t p = 0; p < before.size(); ++p)
    for (std::size_t i = 0; i < before[p].size(); ++i) taken.updates[p][i] -= before[p][i];
  const auto& entries = trainer.parameters().entries;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!entries[i].trainable) continue;
    taken.gradients.emplace_back();  // none of what is frozen by now
    if (trainer.plan().graph()->parameters[i].gradient < 0) continue;
    taken.gradients.back() = trainer.parameters().gradient(entries[i]).read();
    for (float& x : taken.gradients.back()) x *= inverse;
  }
  return taken;
}

Probe::Probe(Value loss, const TrainerOptions& options, const Precision& precision, const Loader& loader)
    : loss_(loss), options_(with_precision(options, precision)), range_steps_(precision.range_steps), loader_(loader) {}

void Probe::attend(std::span<const ExactStep> steps) {
  Trainer trainer(loss_, options_);
  trainer.find_ranges(loader_, range_steps_);
  trainer.take(steps[0].before);
  trainer.step(steps[0].batch);  // ranges that move find their place
  for (const auto& [batch, before, f32] : steps) {
    trainer.take(before);
    StepReport report;
    const StepTaken own = take_step(trainer, batch, report);
    ++tried_;
    nonfinite_ += report.skipped;
    if (!report.skipped) compare(own, f32);
  }
  finish();
}

void Probe::compare(const StepTaken& own_step, const StepTaken& f32) {
  updates_.resize(f32.updates.size());
  for (std::size_t p = 0; p < f32.updates.size(); ++p) {
    for (std::size_t i = 0; i < f32.updates[p].size(); ++i)
      updates_[p].product += std::copysign(1.0f, f32.updates[p][i]) * own_step.updates[p][i];
    for (const float x : f32.updates[p]) updates_[p].energy += std::abs(x);
  }
  gradients_.resize(f32.gradients.size());
  for (std::size_t p = 0; p < f32.gradients.size(); ++p) {
    Together& all = gradients_[p];
    const auto &own = own_step.gradients[p], &exact = f32.gradients[p];
    if (own.size() != exact.size()) continue;  // it is frozen in one of the two
    all.own_sum.resize(own.size());
    all.f32_sum.resize(own.size());
    for (std::size_t i = 0; i < own.size(); ++i) all.own_sum[i] += own[i], all.f32_sum[i] += exact[i];
    all.product += dot(own, exact);
    all.own_energy += dot(own, own);
    all.f32_energy += dot(exact, exact);
  }
  ++steps_;
}

void Probe::finish() {
  const auto all_gradients = std::exchange(gradients_, {});
  const double count = std::exchange(steps_, 0);
  if (count < 2) return;
  for (const Together& all : all_gradients) {
    if (all.f32_energy == 0) continue;
    const double factor = all.product / all.f32_energy;  // of a whole layer's gradient: another learning rate, no error
    const double errors = std::max(0.0, all.own_energy - factor * all.product);  // their energy
    double together = 0;
    for (std::size_t i = 0; i < all.own_sum.size(); ++i) {
      const double error = all.own_sum[i] - factor * all.f32_sum[i];
      together += error * error;
    }
    ++sums_.weight;
    sums_.arrives += factor;
    sums_.all += errors / all.f32_energy;
    sums_.shared += (together - errors) / (count - 1) / all.f32_energy;  // mean product of different steps' errors
  }
}

Fidelity Probe::fidelity() const {
  Fidelity f;
  f.nonfinite = tried_ > 0 ? static_cast<double>(nonfinite_) / tried_ : 0;
  if (sums_.weight == 0) return {.arrives = 0, .retained = 0, .nonfinite = f.nonfinite};
  const double shared = std::max(0.0, sums_.shared / sums_.weight);
  f.arrives = sums_.arrives / sums_.weight;
  f.systematic = std::sqrt(shared);
  f.random = std::max(0.0, sums_.all / sums_.weight - shared);
  double retained = 0, moved = 0;
  for (const auto& [product, energy] : updates_)
    if (energy > 0) retained += product / energy, ++moved;
  f.retained = moved > 0 ? retained / moved : 0;
  return f;
}

}  // namespace halftone

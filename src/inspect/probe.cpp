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
  for (const ParameterSlot& slot : trainer.parameters().entries) {
    if (!slot.trainable) continue;
    taken.gradients.push_back(trainer.parameters().gradient(slot).read());
    for (float& x : taken.gradients.back()) x *= inverse;
  }
  return taken;
}

Probe::Probe(Value loss, const TrainerOptions& options, const Precision& precision, const Loader& loader)
    : trainer_(loss, with_precision(options, precision)) {
  trainer_.find_ranges(loader, precision.range_steps);
}

void Probe::settle(const Trainer& f32, const Batch& batch) {
  trainer_.take(f32);
  trainer_.step(batch);
}

void Probe::try_step(const Trainer& f32, const Batch& batch) {
  trainer_.take(f32);
  StepReport report;
  last_ = take_step(trainer_, batch, report);
  ++tried_;
  nonfinite_ += report.skipped;
  if (report.skipped) last_ = {};
}

void Probe::compare(const StepTaken& f32) {
  if (last_.gradients.empty()) return;
  updates_.resize(f32.updates.size());
  for (std::size_t p = 0; p < f32.updates.size(); ++p) {
    for (std::size_t i = 0; i < f32.updates[p].size(); ++i)
      updates_[p].product += std::copysign(1.0f, f32.updates[p][i]) * last_.updates[p][i];
    for (const float x : f32.updates[p]) updates_[p].energy += std::abs(x);
  }
  steps_.push_back({std::exchange(last_, {}), f32});
}

void Probe::finish() {
  const auto steps = std::exchange(steps_, {});
  const auto count = static_cast<double>(steps.size());
  if (steps.size() < 2) return;
  for (std::size_t p = 0; p < steps[0].f32.gradients.size(); ++p) {
    double along = 0, energy = 0;
    for (const Pair& step : steps) {
      along += dot(step.own.gradients[p], step.f32.gradients[p]);
      energy += dot(step.f32.gradients[p], step.f32.gradients[p]);
    }
    if (energy == 0) continue;
    const double factor = along / energy;  // of a whole layer's gradient: another learning rate, no error
    std::vector<float> sum(steps[0].f32.gradients[p].size());
    double own = 0;  // energy of the errors
    for (const Pair& step : steps) {
      for (std::size_t i = 0; i < sum.size(); ++i) {
        const double error = step.own.gradients[p][i] - factor * step.f32.gradients[p][i];
        own += error * error;
        sum[i] += static_cast<float>(error);
      }
    }
    ++sums_.weight;
    sums_.arrives += factor;
    sums_.all += own / energy;
    sums_.shared += (dot(sum, sum) - own) / (count - 1) / energy;  // mean product of different steps' errors
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

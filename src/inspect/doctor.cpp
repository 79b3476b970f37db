#include "halftone/inspect/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "src/inspect/judge.hpp"
#include "src/inspect/probe.hpp"

namespace halftone {
namespace {

constexpr int each = 4;         // steps that follow each other in which the number systems are tried
constexpr int watch_every = 8;  // a look at all tensors costs about as much as a step

double seconds_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

/// Batches one after the other, through as many epochs as it takes.
class Batches {
 public:
  explicit Batches(const Loader& loader) : loader_(loader), epoch_(loader.epoch(0)) {}
  const Batch& next() {
    const Batch* batch = epoch_.next();
    if (!batch) {
      epoch_ = loader_.epoch(++number_);
      batch = epoch_.next();
    }
    return *batch;
  }

 private:
  const Loader& loader_;
  std::int64_t number_ = 0;
  Epoch epoch_;
};

class Doctor {
 public:
  Doctor(Value loss, const Loader& loader, const DoctorOptions& options)
      : loss_(loss), loader_(loader), options_(options), systems_(options.systems) {
    if (options.steps < 40) fail("diagnose: it takes at least 40 steps to tell anything");
    if (systems_.empty()) systems_ = usual_systems();
    for (const Precision& system : systems_)
      if (system.binarizes) fail(fmt::format("diagnose: precision {} changes the net", system.name));
    options_.trainer.precision = Precision::f32();
    options_.trainer.accumulate = 1;
  }

  Diagnosis operator()() {
    watch();
    found_.loss_scale = safe_scales(found_.tensors);
    for (const Precision& system : systems_) probes_.push_back(probe(system));
    attend();
    for (std::size_t i = 0; i < systems_.size(); ++i) found_.systems.push_back(judge(systems_[i], probes_[i]));
    suggest();
    tell("done", 1);
    return std::move(found_);
  }

 private:
  void tell(const std::string& what, double share) const {
    if (options_.progress) options_.progress(what, share);
  }

  /// The steps in f32, all tensors looked at now and then.
  void watch() {
    TrainerOptions watched = options_.trainer;
    watched.keep_values = true;
    Trainer trainer(loss_, watched);
    Watcher watcher(trainer);
    Batches batches(loader_);
    for (int step = 0; step < options_.steps; ++step) {
      const Batch& batch = batches.next();
      const bool looks = step % watch_every == 0 || step == options_.steps - 1;
      auto began = std::chrono::steady_clock::now();
      if (looks) watcher.begin();
      found_.watch_seconds += seconds_since(began);
      began = std::chrono::steady_clock::now();
      const StepReport report = trainer.step(batch);
      found_.step_seconds += seconds_since(began);
      if (report.skipped) fail(fmt::format("diagnose: f32 itself fails in step {}: {}", step + 1, report.reason));
      found_.losses.push_back(report.loss);
      began = std::chrono::steady_clock::now();
      if (looks) watcher.look();
      found_.watch_seconds += seconds_since(began);
      tell("watching f32", 0.25 * step / options_.steps);
    }
    found_.tensors = watcher.tensors();
  }

  Probe probe(const Precision& system) const {
    Precision tried = system;
    LossScale& scale = tried.loss_scale;
    if (scale.mode == LossScale::Mode::dynamic)  // where it would come to
      scale = LossScale::fixed(
          static_cast<float>(std::clamp<double>(found_.loss_scale.highest, scale.options.min, scale.options.initial)));
    return {loss_, options_.trainer, tried, loader_};
  }

  /// The same steps again, and at the end of each quarter every number system beside them, one after the other: more
  /// than one trainer's memory beside that of f32 is never needed.
  void attend() {
    Trainer trainer(loss_, options_.trainer);
    Batches batches(loader_);
    const int quarter = options_.steps / 4;
    for (int place = 0; place < 4; ++place) {
      for (int step = 0; step < quarter - each; ++step) trainer.step(batches.next());
      std::vector<ExactStep> steps;
      for (int step = 0; step < each; ++step) {
        ExactStep& exact = steps.emplace_back(ExactStep{batches.next(), trainer.parameters(), {}});
        StepReport report;
        exact.taken = take_step(trainer, exact.batch, report);
      }
      for (std::size_t i = 0; i < probes_.size(); ++i) {
        probes_[i].attend(steps);
        tell("trying the number systems",
             0.25 + 0.0625 * (place + static_cast<double>(i + 1) / static_cast<double>(probes_.size())));
      }
    }
  }

  Prognosis judge(const Precision& system, const Probe& probe) {
    Prognosis prognosis{system, spelled(system.loss_scale), Verdict::risky, {}, {}, probe.fidelity(), {}};
    if (options_.rehearse && !settled(prognosis.fidelity)) prognosis.rehearsal = rehearse(system);
    decide(prognosis, found_.loss_scale);
    return prognosis;
  }

  /// Trains a number system on the same batches.
  Prognosis::Rehearsal rehearse(const Precision& system) {
    tell(fmt::format("rehearsing {}", system.name),
         0.5 + 0.5 * static_cast<double>(found_.systems.size()) / static_cast<double>(systems_.size()));
    TrainerOptions options = options_.trainer;
    options.precision = system;
    Trainer trainer(loss_, options);
    trainer.find_ranges(loader_, system.range_steps);
    Batches batches(loader_);
    double own = 0, f32 = 0, lost = 0, steps = 0;
    for (int step = 0; step < options_.steps; ++step) {
      const float loss = trainer.step(batches.next()).loss;
      if (step < options_.steps * 2 / 3) continue;
      ++steps;
      lost += !std::isfinite(loss);
      own += std::isfinite(loss) ? loss : 0;
      f32 += found_.losses[static_cast<std::size_t>(step)];
    }
    return rehearsal(found_.losses[0], f32 / steps, lost > 0.1 * steps ? INFINITY : own / (steps - lost));
  }

  void suggest() {
    for (const WatchedTensor& tensor : found_.tensors) found_.suggested.push_back(cheapest_storage(tensor));
    for (const Precision& candidate : candidates(found_)) {
      const auto known = std::find_if(found_.systems.begin(), found_.systems.end(), [&](const Prognosis& p) {
        return p.precision.name == candidate.name && p.precision.loss_scale.mode == candidate.loss_scale.mode;
      });
      found_.suggestion = suggestion(candidate);
      if (candidate.name == "f32") return;
      if (known != found_.systems.end()) {
        if (known->verdict == Verdict::fine) return;
        continue;
      }
      probes_.clear();
      probes_.push_back(probe(candidate));
      attend();
      if (judge(candidate, probes_[0]).verdict == Verdict::fine) return;
    }
  }

  Value loss_;
  const Loader& loader_;
  DoctorOptions options_;
  std::vector<Precision> systems_;
  std::vector<Probe> probes_;
  Diagnosis found_;
};

}  // namespace

std::vector<Precision> usual_systems() {
  std::vector<Precision> systems;
  for (const char* name : {"f16", "f16", "bf16", "f16_pure:nearest", "bf16_pure:nearest", "bf16_pure:stochastic",
                           "bf16_pure:kahan", "fixed:6.10:nearest", "fixed:6.10:stochastic", "fp8", "int8", "mxfp8"}) {
    systems.push_back(precision_by_name(name));
    systems.back().name = name;  // as it was asked for
  }
  systems[0].loss_scale = LossScale::none();
  return systems;
}

Diagnosis diagnose(Value loss, const Loader& loader, const DoctorOptions& options) {
  return Doctor(loss, loader, options)();
}

}  // namespace halftone

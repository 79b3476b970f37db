#include "src/inspect/judge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

namespace halftone {
namespace {

bool is_gradient(const WatchedTensor& tensor) { return std::string_view(tensor.role).ends_with("_gradients"); }

std::string percent(double share) { return fmt::format("{:.3g} %", 100 * share); }

std::string power(double scale) { return fmt::format("2^{}", std::ilogb(scale)); }

/// What an f16 without the right loss scale suffers from.
std::string beside_the_scales(const Prognosis& p, const SafeScales& safe) {
  const LossScale& scale = p.precision.loss_scale;
  if (p.precision.storage.activation_gradients.code != DType::f16 || scale.mode == LossScale::Mode::dynamic) return {};
  const double own = scale.options.initial;
  if (own >= safe.lowest && own <= safe.highest) return {};
  return fmt::format("; gradients need a loss scale between {} and {}, here it is {}", power(safe.lowest),
                     power(safe.highest), own);
}

struct Words {
  Verdict verdict;
  std::string reason, advice;
};

/// What is so wrong that no rehearsal is needed.
std::optional<Words> failure(const Fidelity& f) {
  if (f.nonfinite >= 0.5)
    return Words{Verdict::fails, fmt::format("{} of the steps overflow and are skipped", percent(f.nonfinite)),
                 "use a format with a wider range (bf16), or a dynamic loss scale"};
  if (f.arrives < 0.2)
    return Words{Verdict::fails,
                 fmt::format("only {} of the gradient arrives, the rest is too small for the format and becomes 0",
                             percent(std::max(0.0, f.arrives))),
                 "use a dynamic loss scale (f16), or a format that goes on further down (bf16, fp8 with its scales)"};
  if (f.retained < 0.1)
    return Words{
        Verdict::fails,
        fmt::format("{} of what steps should change is lost when weights are rounded", percent(1 - f.retained)),
        "keep f32 masters (a preset without _pure, or update=f32), or round with kahan or stochastic"};
  if (f.random > 30)
    return Words{Verdict::fails, fmt::format("rounding adds {:.0f} times the gradient's own energy in noise", f.random),
                 "more fraction bits for gradients: keep activation_gradients and weight_gradients wider"};
  return std::nullopt;
}

bool is_clear(const Fidelity& f) {
  return f.nonfinite == 0 && f.systematic < 0.05 && std::abs(f.arrives - 1) < 0.05 && f.random < 0.05 &&
         std::abs(f.retained - 1) < 0.05;
}

/// The largest of what is not as in f32.
Words doubt(const Fidelity& f) {
  if (f.nonfinite > 0)
    return {Verdict::risky, fmt::format("{} of the steps overflow and are skipped", percent(f.nonfinite)),
            "use a dynamic loss scale, or a format with a wider range (bf16)"};
  if (f.retained < 0.9 && f.retained < f.arrives - 0.05)
    return {Verdict::risky,
            fmt::format("{} of what steps should change is lost when weights are rounded", percent(1 - f.retained)),
            "keep f32 masters (a preset without _pure, or update=f32), or round with kahan or stochastic"};
  if (f.systematic >= 0.05 && f.systematic * f.systematic * 10 > f.random)
    return {
        Verdict::risky,
        fmt::format("rounding turns the gradient by {} in the same direction batch after batch", percent(f.systematic)),
        "round stochastically, or keep activation_gradients wider"};
  if (std::abs(f.arrives - 1) >= 0.05)
    return {Verdict::risky, fmt::format("{} of the gradient's length arrives", percent(f.arrives)),
            "keep gradients wider or give them a scale"};
  if (f.random < 0.05)
    return {Verdict::risky, fmt::format("rounding makes {} of what steps should change", percent(f.retained)),
            "keep f32 masters (a preset without _pure, or update=f32), or round stochastically"};
  return {Verdict::risky, fmt::format("rounding adds {} of the gradient's own energy in noise", percent(f.random)),
          "more fraction bits for gradients, or a larger batch"};
}

bool bears(const Storage& storage, const ExponentHistogram& seen, int shift = 0) {
  const StorageRange range = range_of(storage, seen);
  const bool fits = seen.nonzero() == 0 || std::ilogb(seen.largest()) + shift <= range.highest;
  return fits && seen.share_below(range.lowest - shift) <= 0.01;
}

}  // namespace

SafeScales safe_scales(const std::vector<WatchedTensor>& tensors) {
  constexpr int top = 15, step = -24;  // of f16: its largest power of two, its smallest step
  int lowest = -1000, highest = 1000;
  for (const WatchedTensor& tensor : tensors) {
    const ExponentHistogram& seen = tensor.exponents;
    if (!is_gradient(tensor) || seen.nonzero() == 0) continue;
    highest = std::min(highest, top - 2 - std::ilogb(seen.largest()));
    // An error is at most half a step: its mean square a third of that squared, or less where numbers are normal.
    const double mean_square = seen.energy() / static_cast<double>(seen.nonzero());
    lowest = std::max(lowest, static_cast<int>(std::ceil(step - 1 + 6 - 0.5 * std::log2(3 * mean_square))));
  }
  if (lowest == -1000) return {};
  return {std::ldexp(1.0, lowest), std::ldexp(1.0, highest)};
}

std::string spelled(const LossScale& scale) {
  switch (scale.mode) {
    case LossScale::Mode::none:
      return "none";
    case LossScale::Mode::fixed:
      return fmt::format("{}", scale.options.initial);
    case LossScale::Mode::dynamic:
      break;
  }
  return "dynamic";
}

Prognosis::Rehearsal rehearsal(double first, double f32, double own) {
  const double nothing = 2e-3 * std::abs(first);  // beside a loss like this another one is no multiple of it
  const double fall = first - f32, loss = (std::max(own, 0.0) + nothing) / (std::max(f32, 0.0) + nothing);
  return {loss, fall > 10 * nothing ? (first - own) / fall : std::nan("")};
}

bool settled(const Fidelity& fidelity) { return failure(fidelity).has_value() || is_clear(fidelity); }

void decide(Prognosis& p, const SafeScales& safe) {
  const Fidelity& f = p.fidelity;
  Words words;
  if (const auto failed = failure(f)) {
    words = *failed;
  } else if (is_clear(f)) {
    words = {Verdict::fine,
             fmt::format("gradients differ from those of f32 by {}, {} of each update is kept",
                         percent(std::sqrt(f.random + f.systematic * f.systematic)), percent(f.retained)),
             "use it"};
  } else {
    words = doubt(f);
    if (p.rehearsal) {
      const auto [loss, progress] = *p.rehearsal;
      words.reason += std::isnan(progress) ? std::string("; f32 itself learned nothing in these steps")
                      : std::isfinite(loss)
                          ? fmt::format("; a rehearsal ended at {:.3g} times the loss of f32, after {} of its progress",
                                        loss, percent(std::max(0.0, progress)))
                          : "; a rehearsal lost its numbers";
      if (!std::isnan(progress) && (!(loss < 4) || progress < 0.25)) words.verdict = Verdict::fails;
      if (loss < 1.25 && progress > 0.9 && f.retained > 0.8)
        words.verdict = Verdict::fine, words.advice = "use it, and compare with f32 once";
    }
  }
  if (const std::string beside = beside_the_scales(p, safe); words.verdict != Verdict::fine && !beside.empty()) {
    words.reason += beside;
    words.advice = "use a dynamic loss scale, or a fixed one within these bounds";
  }
  p.verdict = words.verdict;
  p.reason = words.reason;
  p.advice = words.advice;
}

std::string cheapest_storage(const WatchedTensor& tensor) {
  const ExponentHistogram& seen = tensor.exponents;
  if (std::string_view(tensor.role) == "update")
    return tensor.lost_bf16 < 0.05 ? "bf16" : tensor.lost_f16 < 0.05 ? "f16" : "f32";
  const DType eight = is_gradient(tensor) ? DType::e5m2 : DType::e4m3;
  if (bears(Storage::scaled(eight), seen)) return fmt::format("{}, scaled", name_of(eight));
  const int shift = is_gradient(tensor) && seen.nonzero() > 0 ? 13 - std::ilogb(seen.largest()) : 0;
  if (bears(DType::f16, seen, shift)) return is_gradient(tensor) ? "f16, loss scaled" : "f16";
  return bears(DType::bf16, seen) ? "bf16" : "f32";
}

std::vector<Precision> candidates(const Diagnosis& found) {
  std::vector<std::string> wide;
  for (std::size_t i = 0; i < found.tensors.size(); ++i) {
    const std::string& node = found.tensors[i].node;
    const bool bears_eight = found.suggested[i].ends_with(", scaled");
    if (std::string_view(found.tensors[i].role) == "update" || bears_eight) continue;
    if (std::find(wide.begin(), wide.end(), node) == wide.end()) wide.push_back(node);
  }
  Precision mixed = Precision::fp8();
  mixed.name = "fp8";
  for (const std::string& node : wide) {
    mixed = mixed.except(node, Precision::bf16().storage);
    mixed.name += "+" + node + "=bf16";
  }
  return {mixed, Precision::f16(), Precision::bf16(), Precision::f32()};
}

Suggestion suggestion(const Precision& precision) {
  const std::string preset = precision.name.substr(0, precision.name.find_first_of(":+"));
  Suggestion result{precision, "--precision " + preset,
                    fmt::format("ht::Precision precision = ht::Precision::{}();\n", preset)};
  for (const auto& exception : precision.exceptions) {
    result.options += fmt::format(" --keep {}=bf16", exception.scope);
    result.code +=
        fmt::format("precision = precision.except(\"{}\", ht::Precision::bf16().storage);\n", exception.scope);
  }
  return result;
}

}  // namespace halftone

#include "halftone/train/check_gradient.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <ostream>
#include <random>
#include <utility>

#include "halftone/graph/differentiate.hpp"
#include "halftone/graph/fuse.hpp"
#include "halftone/graph/plan.hpp"

namespace halftone {
namespace {

double root_mean_square(const std::vector<float>& values) {
  double sum = 0;
  for (float x : values) sum += static_cast<double>(x) * x;
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

struct Checked {
  std::string name;
  TensorView memory;
  std::optional<TensorView> gradient_memory;  ///< none where the loss does not depend on the tensor
  std::vector<float> values, gradient;

  std::vector<float> read_gradient() const {
    return gradient_memory ? gradient_memory->read() : std::vector<float>(values.size());
  }
};

class Check {
 public:
  Check(const Plan& plan, int loss, const GradientCheckOptions& options)
      : plan_(plan),
        loss_(loss),
        random_(options.seed),
        directions_(options.directions),
        tolerance_(options.tolerance) {}

  double loss() const {
    plan_.run();
    const TensorView view = plan_.view(loss_);
    view.backend->synchronize();
    return static_cast<double>(view.read()[0]);
  }

  GradientReport::Tensor worst(const Checked& tensor) {
    GradientReport::Tensor result{tensor.name};
    for (int i = 0; i < directions_; ++i) {
      const bool leans = i % 2 == 0;
      const auto tried = along(tensor, direction(tensor, leans), leans);
      if (i == 0 || !(tried.relative_error <= result.relative_error)) result = tried;
    }
    return result;
  }

 private:
  /// Where it leans, signs and gradient do not cancel: the slope is at least as large as sqrt(n / 2) norms.
  std::vector<double> direction(const Checked& tensor, bool leans) {
    const double size = root_mean_square(tensor.gradient);
    std::vector<double> d;
    double slope = 0;
    for (float g : tensor.gradient) {
      d.push_back(random_() & 1u ? 1 : -1);
      slope += d.back() * static_cast<double>(g);
    }
    if (leans && size > 0)
      for (std::size_t i = 0; i < d.size(); ++i)
        d[i] = (std::copysign(d[i], d[i] * slope) + static_cast<double>(tensor.gradient[i]) / size) * std::sqrt(0.5);
    return d;
  }

  /// The loss at `step` times `d` from the tensor's values, where it stays.
  double loss_beside(const Checked& tensor, const std::vector<double>& d, double step) const {
    std::vector<float> moved(d.size());
    for (std::size_t i = 0; i < d.size(); ++i)
      moved[i] = static_cast<float>(static_cast<double>(tensor.values[i]) + step * d[i]);
    TensorView(tensor.memory).write(moved);
    return loss();
  }

  static double product(const std::vector<double>& d, const std::vector<float>& gradient) {
    return std::inner_product(d.begin(), d.end(), gradient.begin(), 0.0);
  }

  /// Where the integral must not settle, its last two changes are noise after a few intervals.
  GradientReport::Tensor along(const Checked& tensor, const std::vector<double>& d, bool must_settle) const {
    constexpr int few_intervals = 16, most_intervals = 256;
    const double size = root_mean_square(tensor.values), scale = size > 0 ? size : 1;
    const double norm =
        scale * root_mean_square(tensor.gradient) * std::sqrt(static_cast<double>(tensor.gradient.size()));
    const auto loss_at = [&](double step) { return loss_beside(tensor, d, step * scale); };
    const auto slope = [&](const std::vector<float>& gradient) { return scale * product(d, gradient); };
    const double expected = std::max(std::abs(slope(tensor.gradient)), norm), rounding = std::abs(loss()) * 0x1p-22;
    const double h = expected > 0 ? std::clamp(rounding / (tolerance_ / 32 * expected), 0x1p-13, 0x1p-4) : 0x1p-4;
    const double low = loss_at(-h), low_slope = slope(tensor.read_gradient()), high = loss_at(h),
                 high_slope = slope(tensor.read_gradient());
    GradientReport::Tensor result{tensor.name};
    result.numeric = (high - low) / (2 * h);
    double trapezoid = (low_slope + high_slope) / 2, simpson = HUGE_VAL, change = HUGE_VAL;
    int settled = 0;  // times in a row
    for (int intervals = 2; intervals <= most_intervals; intervals *= 2) {
      double middles = 0;
      for (int k = 1; k < intervals; k += 2)
        loss_at(h * (2.0 * k / intervals - 1)), middles += slope(tensor.read_gradient());
      const double finer = (trapezoid + middles * 2 / intervals) / 2;
      result.analytic = (4 * finer - trapezoid) / 3;
      const double magnitude = std::max({std::abs(result.analytic), std::abs(result.numeric), norm});
      const double last_change = std::exchange(change, std::abs(result.analytic - simpson));
      settled = change <= tolerance_ / 4 * magnitude ? settled + 1 : 0;
      const bool ends = settled == 0 && !must_settle && intervals >= few_intervals;
      result.noise = rounding / h + (ends ? change + last_change : 0);
      const double difference = std::max(std::abs(result.analytic - result.numeric) - result.noise, 0.0);
      result.relative_error = difference == 0 ? 0 : difference / magnitude;
      const bool agrees = result.relative_error <= tolerance_;
      // Once or twice two values may agree by chance.
      if (settled >= (agrees ? 2 : 3) || (ends && agrees)) break;
      trapezoid = finer, simpson = result.analytic;
    }
    TensorView(tensor.memory).write(tensor.values);
    return result;
  }

  const Plan& plan_;
  int loss_;
  std::mt19937 random_;
  int directions_;
  double tolerance_;
};

}  // namespace

bool GradientReport::passed() const {
  return std::all_of(tensors.begin(), tensors.end(), [&](const Tensor& t) { return t.relative_error <= tolerance; });
}

std::ostream& operator<<(std::ostream& out, const GradientReport& report) {
  for (const auto& t : report.tensors)
    out << fmt::format("{:<32} analytic {:>13.6e}  numeric {:>13.6e}  noise {:.0e}  relative error {:.1e}{}\n", t.name,
                       t.analytic, t.numeric, t.noise, t.relative_error,
                       t.relative_error <= report.tolerance ? "" : "  too large");
  return out;
}

GradientReport check_gradient(Value loss, const std::vector<std::vector<float>>& inputs,
                              const GradientCheckOptions& options) {
  Graph graph = graph_of(loss).clone();
  std::vector<Value> also;
  for (const Value& value : options.also) also.push_back(graph.value(value.id()));
  const std::vector<Value> d_also = differentiate(graph, graph.value(loss.id()), also);
  std::vector<int> keep = {loss.id()};
  for (const Value& d : d_also)
    if (d) keep.push_back(d.id());
  fuse(graph, options.device, keep);
  if (inputs.size() != graph->inputs.size())
    fail(fmt::format("check_gradient: {} arrays for {} inputs", inputs.size(), graph->inputs.size()));

  const Parameters parameters(graph, options.device, {.seed = options.seed});
  const Plan plan(graph, parameters, keep);
  for (std::size_t i = 0; i < inputs.size(); ++i) plan.view(graph->inputs[i]).write(inputs[i]);

  Check check(plan, loss.id(), options);
  check.loss();
  std::vector<Checked> tensors;
  const auto add = [&](const std::string& name, const TensorView& memory, std::optional<TensorView> gradient) {
    tensors.push_back({name, memory, gradient, memory.read(), {}});
    tensors.back().gradient = tensors.back().read_gradient();
  };
  for (const auto& info : graph->parameters) {
    if (!info.trainable) continue;
    const ParameterSlot& slot = parameters.find(info.name);
    add(info.name, parameters.weight(slot), slot.trainable ? std::optional(parameters.gradient(slot)) : std::nullopt);
  }
  for (std::size_t i = 0; i < also.size(); ++i) {
    add(graph.info(also[i].id()).name, plan.view(also[i].id()),
        d_also[i] ? std::optional(plan.view(d_also[i].id())) : std::nullopt);
  }
  GradientReport report{{}, options.tolerance};
  for (const Checked& tensor : tensors) report.tensors.push_back(check.worst(tensor));
  return report;
}

}  // namespace halftone

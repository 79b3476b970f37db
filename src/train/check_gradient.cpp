#include "halftone/train/check_gradient.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <random>

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

struct Estimate {
  double value = 0;
  double error = HUGE_VAL;  ///< as the extrapolations differ
  double noise = 0;         ///< what the rounding of the function's values may have added
};

/// The derivative at 0 from central differences at halved steps, extrapolated; `rounding` is that of f.
template <class F>
Estimate derivative(F&& f, double first_step, double rounding) {
  constexpr int steps = 9;
  std::vector<double> before, row;
  Estimate best;
  double h = first_step;
  for (int i = 0; i < steps; ++i, h /= 2) {
    row = {(f(h) - f(-h)) / (2 * h)};
    double weight = 1;
    for (std::size_t j = 1; j <= before.size() && j < 4; ++j) {
      weight *= 4;
      row.push_back((weight * row[j - 1] - before[j - 1]) / (weight - 1));
      const double noise = 2 * rounding / h;
      const double error = std::max(std::abs(row[j] - row[j - 1]), std::abs(row[j] - before[j - 1])) + noise;
      if (error < best.error) best = {row[j], error, noise};
    }
    before = row;
  }
  return best;
}

struct Checked {
  std::string name;
  TensorView memory;
  std::vector<float> values, gradient;
};

class Check {
 public:
  Check(const Plan& plan, int loss, const GradientCheckOptions& options)
      : plan_(plan), loss_(loss), random_(options.seed), directions_(options.directions) {}

  double loss() const {
    plan_.run();
    const TensorView view = plan_.view(loss_);
    view.backend->synchronize();
    return static_cast<double>(view.read()[0]);
  }

  GradientReport::Tensor worst(const Checked& tensor) {
    GradientReport::Tensor result{tensor.name};
    for (int i = 0; i < directions_; ++i) {
      const auto tried = along(tensor, direction(tensor, i % 2 == 1));
      if (i == 0 || !(tried.relative_error <= result.relative_error)) result = tried;
    }
    return result;
  }

 private:
  std::vector<double> direction(const Checked& tensor, bool towards_gradient) {
    const double size = root_mean_square(tensor.gradient);
    std::vector<double> d;
    for (float g : tensor.gradient) {
      const double sign = random_() & 1u ? 1 : -1;
      d.push_back(towards_gradient && size > 0 ? (sign + static_cast<double>(g) / size) * std::sqrt(0.5) : sign);
    }
    return d;
  }

  GradientReport::Tensor along(const Checked& tensor, const std::vector<double>& d) const {
    const double size = root_mean_square(tensor.values), scale = size > 0 ? size : 1;
    const double rounding = std::abs(loss()) * 0x1p-22;
    GradientReport::Tensor result{tensor.name};
    double squares = 0;
    for (std::size_t i = 0; i < d.size(); ++i) {
      result.analytic += scale * d[i] * static_cast<double>(tensor.gradient[i]);
      squares += static_cast<double>(tensor.gradient[i]) * static_cast<double>(tensor.gradient[i]);
    }
    std::vector<float> moved(d.size());
    TensorView memory = tensor.memory;
    const auto loss_at = [&](double step) {
      for (std::size_t i = 0; i < d.size(); ++i)
        moved[i] = static_cast<float>(static_cast<double>(tensor.values[i]) + step * scale * d[i]);
      memory.write(moved);
      return loss();
    };
    const Estimate numeric = derivative(loss_at, 0x1p-4, rounding);
    memory.write(tensor.values);
    result.numeric = numeric.value;
    result.noise = numeric.noise;
    const double difference = std::max(std::abs(result.analytic - result.numeric) - result.noise, 0.0);
    const double magnitude =
        std::max({std::abs(result.analytic), std::abs(result.numeric), scale * std::sqrt(squares)});
    result.relative_error = difference == 0 ? 0 : difference / magnitude;
    return result;
  }

  const Plan& plan_;
  int loss_;
  std::mt19937 random_;
  int directions_;
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
  const auto add = [&](const std::string& name, const TensorView& memory, const TensorView* gradient) {
    auto values = memory.read();
    const std::vector<float> zeros(values.size());
    tensors.push_back({name, memory, std::move(values), gradient ? gradient->read() : zeros});
  };
  for (const auto& info : graph->parameters) {
    if (!info.trainable) continue;
    const ParameterSlot& slot = parameters.find(info.name);
    const TensorView gradient = slot.trainable ? parameters.gradient(slot) : TensorView{};
    add(info.name, parameters.weight(slot), slot.trainable ? &gradient : nullptr);
  }
  for (std::size_t i = 0; i < also.size(); ++i) {
    const TensorView gradient = d_also[i] ? plan.view(d_also[i].id()) : TensorView{};
    add(graph.info(also[i].id()).name, plan.view(also[i].id()), d_also[i] ? &gradient : nullptr);
  }
  GradientReport report{{}, options.tolerance};
  for (const Checked& tensor : tensors) report.tensors.push_back(check.worst(tensor));
  return report;
}

}  // namespace halftone

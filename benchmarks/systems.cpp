// What number systems cost on a CPU: a step on a random batch, in turn with those that it is held against, by the
// processor time that all threads got; the fastest of each, and the median of the ratios. A JSON line for each:
// - gupta and resnet20 beside f32, all by direct kernels, on two threads;
// - resnet20 with counters (`Precision::noticing`) and without, by the fastest kernels, on one.
//
//   systems [PRECISION...]
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "benchmarks/clock.hpp"
#include "halftone/halftone.hpp"

namespace {

using namespace halftone;

/// Steps of one training; `step` measures one.
struct Steps {
  Graph graph;
  std::vector<std::uint8_t> images;
  std::vector<std::int32_t> labels;
  std::unique_ptr<Trainer> trainer;
  double best = 1e9;  ///< seconds

  Steps(bool resnet, const Precision& precision, const CpuOptions& cpu) {
    const Shape shape = resnet ? Shape{32, 32, 32, 3} : Shape{100, 28, 28, 1};
    for (std::int64_t i = 0; i < shape.elements(); ++i)
      images.push_back(static_cast<std::uint8_t>(bits(1, 0, 0, static_cast<std::uint64_t>(i))));
    for (std::int64_t i = 0; i < shape.n; ++i) labels.push_back(static_cast<std::int32_t>(i % 10));
    const Value x = graph.input("images", shape, DType::u8), y = graph.input("labels", {shape.n, 1, 1, 1}, DType::i32);
    const std::vector<float> half(static_cast<std::size_t>(shape.c), 0.5f), quarter(half.size(), 0.25f);
    const Value inputs = normalize(x, half, quarter), logits = resnet ? resnet20(inputs, 10) : gupta(inputs);
    trainer = std::make_unique<Trainer>(cross_entropy(logits, y),
                                        TrainerOptions{.device = cpu_device(cpu), .precision = precision});
  }
  double step() {
    const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(images)), std::as_bytes(std::span(labels))};
    const double start = seconds_by(CLOCK_PROCESS_CPUTIME_ID);
    trainer->step(inputs);
    const double seconds = seconds_by(CLOCK_PROCESS_CPUTIME_ID) - start;
    best = std::min(best, seconds);
    return seconds;
  }
};

/// How many times as long as a step of `base` one of `other` takes.
double ratio(Steps& base, Steps& other) {
  std::vector<double> ratios(61);
  for (double& ratio : ratios) ratio = 1 / base.step(), ratio *= other.step();
  std::ranges::nth_element(ratios, ratios.begin() + 30);
  return ratios[30];
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<std::string> names(argv + 1, argv + argc);
  if (names.empty()) names = {"fixed:6.10:stochastic", "dynamic_fixed:10/12", "fp8", "f32", "bf16"};
  for (const std::string& name : names) {
    const Precision precision = precision_by_name(name);
    for (const bool resnet : {false, true}) {
      const CpuOptions direct{.threads = 2, .algorithms = "direct"};
      Steps f32(resnet, Precision::f32(), direct), other(resnet, precision, direct);
      const double times = ratio(f32, other);
      fmt::print("{{\"net\": \"{}\", \"precision\": \"{}\", \"ms_f32\": {:.2f}, \"ms\": {:.2f}, \"ratio\": {:.2f}}}\n",
                 resnet ? "resnet20" : "gupta", name, f32.best * 1e3, other.best * 1e3, times);
    }
    Steps without(true, precision, {.threads = 1}), with(true, precision.noticing(), {.threads = 1});
    const double times = ratio(without, with);
    fmt::print(
        "{{\"net\": \"resnet20\", \"precision\": \"{}\", \"ms\": {:.2f}, \"ms_with_counters\": {:.2f}, "
        "\"more_percent\": {:.1f}}}\n",
        name, without.best * 1e3, with.best * 1e3, 100 * (times - 1));
  }
} catch (const halftone::Error& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 2;
}

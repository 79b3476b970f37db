// What number systems cost on a CPU: a step on a random batch, in turn with those that it is held against, by the
// processor time that all threads got: the time that a quarter of the steps stay below. A JSON line for each:
// - gupta and resnet20 beside f32, all by direct kernels, on two threads;
// - resnet20 with counters (`Precision::noticing`) and without, by the fastest kernels, on one.
//
//   systems [PRECISION...]
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <utility>
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
  std::vector<double> seconds;  ///< of each

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
  void step() {
    const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(images)), std::as_bytes(std::span(labels))};
    const double start = seconds_by(CLOCK_PROCESS_CPUTIME_ID);
    trainer->step(inputs);
    seconds.push_back(seconds_by(CLOCK_PROCESS_CPUTIME_ID) - start);
  }
  double milliseconds() {
    const auto quarter = seconds.begin() + std::ssize(seconds) / 4;
    std::ranges::nth_element(seconds, quarter);
    return *quarter * 1e3;
  }
};

/// Milliseconds of a step each.
std::pair<double, double> in_turn(Steps& one, Steps& other, int steps) {
  for (int i = 0; i < steps; ++i) one.step(), other.step();
  return {one.milliseconds(), other.milliseconds()};
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
      const auto [ms_f32, ms] = in_turn(f32, other, 61);
      fmt::print("{{\"net\": \"{}\", \"precision\": \"{}\", \"ms_f32\": {:.2f}, \"ms\": {:.2f}, \"ratio\": {:.2f}}}\n",
                 resnet ? "resnet20" : "gupta", name, ms_f32, ms, ms / ms_f32);
    }
    Steps without(true, precision, {.threads = 1}), with(true, precision.noticing(), {.threads = 1});
    const auto [ms, ms_with] = in_turn(without, with, 121);
    fmt::print(
        "{{\"net\": \"resnet20\", \"precision\": \"{}\", \"ms\": {:.2f}, \"ms_with_counters\": {:.2f}, "
        "\"more_percent\": {:.1f}}}\n",
        name, ms, ms_with, 100 * (ms_with / ms - 1));
  }
} catch (const halftone::Error& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 2;
}

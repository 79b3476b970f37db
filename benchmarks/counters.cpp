// What counting costs (`Precision::noticing`): a step of resnet20 on a random batch with counters and without, in turn,
// on one thread, by the processor time it got; the fastest of each counts. A JSON line a number system.
//
//   counters [PRECISION...]
#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <vector>

#include "benchmarks/clock.hpp"
#include "halftone/halftone.hpp"

namespace {

using namespace halftone;

double now() { return seconds_by(CLOCK_THREAD_CPUTIME_ID); }

/// Steps of one training; `step` returns the seconds of one.
struct Steps {
  static constexpr std::int64_t batch = 32;
  Graph graph;
  std::vector<std::uint8_t> images;
  std::vector<std::int32_t> labels;
  std::unique_ptr<Trainer> trainer;

  explicit Steps(const Precision& precision) : images(batch * 32 * 32 * 3), labels(batch) {
    for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<std::uint8_t>(bits(1, 0, 0, i));
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 10);
    const Value x = graph.input("images", {batch, 32, 32, 3}, DType::u8),
                y = graph.input("labels", {batch, 1, 1, 1}, DType::i32);
    const Value logits = resnet20(normalize(x, {0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}), 10);
    trainer = std::make_unique<Trainer>(cross_entropy(logits, y),
                                        TrainerOptions{.device = cpu_device({.threads = 1}), .precision = precision});
  }
  double step() {
    const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(images)), std::as_bytes(std::span(labels))};
    const double start = now();
    trainer->step(inputs);
    return now() - start;
  }
};

}  // namespace

int main(int argc, char** argv) try {
  std::vector<std::string> names(argv + 1, argv + argc);
  if (names.empty()) names = {"f32", "bf16", "fp8", "fixed:6.10:stochastic"};
  for (const std::string& name : names) {
    const Precision precision = precision_by_name(name);
    Steps without(precision), with(precision.noticing());
    double best[] = {1e9, 1e9};
    for (int i = 0; i < 12; ++i) best[0] = std::min(best[0], without.step()), best[1] = std::min(best[1], with.step());
    fmt::print("{{\"precision\": \"{}\", \"ms\": {:.2f}, \"ms_with_counters\": {:.2f}, \"more_percent\": {:.1f}}}\n",
               name, best[0] * 1e3, best[1] * 1e3, 100 * (best[1] / best[0] - 1));
  }
} catch (const halftone::Error& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 2;
}

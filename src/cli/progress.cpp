#include "cli/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/classifier.hpp"

namespace halftone::cli {
namespace {

constexpr const char* clear_line = "\r\033[K";

std::string clock_text(double seconds) {
  const auto total = std::llround(seconds);
  if (total < 3600) return fmt::format("{}:{:02}", total / 60, total % 60);
  return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

std::string accuracy_text(const std::optional<Score>& test) {
  return test ? fmt::format("  test accuracy {:.2f} %", 100 * test->accuracy()) : "";
}

}  // namespace

Score score(Trainer& trainer, const Loader& loader, Value accuracy, bool average) {
  const double share = trainer.evaluate(loader, accuracy, average);  // of f32 means: near the share of a whole number
  return {std::llround(share * static_cast<double>(loader.size())), loader.size()};
}

Score score(Trainer& trainer, const Loader& loader, Value logits, std::span<const View> views, bool average) {
  const std::int64_t classes = logits.shape().c;
  std::vector<float> sum(static_cast<std::size_t>(loader.size() * classes));
  for (const View& view : views) {
    const auto values = trainer.predict(loader.in_order(view), logits, average);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += view.weight * values[i];
  }
  Score score{.images = loader.size()};
  for (std::int64_t i = 0; i < score.images; ++i)
    score.right +=
        first_largest(sum.data() + i * classes, classes) == loader.dataset().labels[static_cast<std::size_t>(i)];
  return score;
}

Progress::Progress(std::int64_t epochs, std::int64_t batches, std::int64_t batch_size)
    : epochs_(epochs), batches_(batches), batch_size_(batch_size), terminal_(::isatty(STDOUT_FILENO) != 0) {}

void Progress::begin(std::int64_t batches_done) {
  first_ = seen_ = batches_done;
  began_ = Clock::now();
}

void Progress::step(const StepReport& step) {
  ++seen_;
  if (std::isfinite(step.loss)) loss_ = seen_ == first_ + 1 ? step.loss : 0.98 * loss_ + 0.02 * step.loss;
  const auto now = Clock::now();
  if (terminal_ && seconds_between(shown_, now) > 0.1) show(step, now);
}

void Progress::show(const StepReport& step, Clock::time_point now) {
  shown_ = now;
  const double rate = static_cast<double>(seen_ - first_) / std::max(seconds_between(began_, now), 1e-9);
  const double left = static_cast<double>(epochs_ * batches_ - seen_) / rate;
  fmt::print("{}epoch {}/{}  batch {}/{}  loss {:.4f}{}  {:.0f} images/s  scale {:g}  ETA {}", clear_line,
             (seen_ - 1) / batches_ + 1, epochs_, (seen_ - 1) % batches_ + 1, batches_, loss_, accuracy_text(test_),
             rate * static_cast<double>(batch_size_), step.scale, clock_text(left));
  std::fflush(stdout);
}

void Progress::end(const EpochResult& epoch) {
  const EpochReport& e = epoch.training;
  if (epoch.test) test_ = epoch.test;
  fmt::print("{}epoch {}/{}  loss {:.4f}{}  {:.0f} images/s  {:.1f} s  scale {:g}  {} skipped{}\n",
             terminal_ ? clear_line : "", e.epoch, epochs_, e.loss, accuracy_text(epoch.test), e.images_per_second,
             e.seconds, e.loss_scale, e.skipped_steps, e.stopped ? "  (interrupted)" : "");
  std::fflush(stdout);
}

}  // namespace halftone::cli

#include "halftone/train/whiten.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "halftone/halftone.hpp"

namespace halftone {
namespace {

/// Smooth images: neighbours have much in common, so that there is something to whiten.
Dataset smooth() {
  constexpr int count = 20, h = 7, w = 6, c = 3;
  std::vector<float> pixels;
  for (int i = 0; i < count; ++i)
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x)
        for (int k = 0; k < c; ++k)
          pixels.push_back(std::sin(0.5f * static_cast<float>(x + y * (k + 1)) + static_cast<float>(i)) +
                           0.2f * uniform(1, 0, 0, pixels.size()));
  return in_memory("smooth", {1, h, w, c}, pixels, std::vector<std::int32_t>(count));
}

std::vector<float> filters_of(const Dataset& data, std::int64_t images, float epsilon) {
  Graph g;
  const Value weight = g.parameter("stem.weight", {24, 2, 2, 3}, uniform(1), 4);
  whiten(g, "stem.weight", data, images, epsilon);
  EXPECT_FALSE(g->parameters[0].trainable);
  std::vector<float> filters(static_cast<std::size_t>(weight.shape().elements()));
  g->parameters[0].initializer(filters, 1, 0);
  return filters;
}

/// The mean of the products of each two filters' answers to all patches.
std::vector<double> moments(const Dataset& data, std::int64_t images, const std::vector<float>& filters) {
  std::vector<double> sum(24 * 24), answers(24);
  const auto* pixels = reinterpret_cast<const float*>(data.pixels.data());
  for (std::int64_t i = 0; i < images; ++i)
    for (std::int64_t y = 0; y + 2 <= data.image.h; ++y)
      for (std::int64_t x = 0; x + 2 <= data.image.w; ++x) {
        for (std::size_t f = 0; f < 24; ++f) {
          answers[f] = 0;
          for (std::int64_t t = 0; t < 12; ++t) {
            const std::int64_t row = (i * data.image.h + y + t / 6) * data.image.w + x + t / 3 % 2;
            const auto channel = static_cast<std::size_t>(t % 3);
            const double normalised = (pixels[row * 3 + t % 3] - data.mean[channel]) / data.stddev[channel];
            answers[f] += filters[f * 12 + static_cast<std::size_t>(t)] * normalised;
          }
        }
        for (std::size_t a = 0; a < 24; ++a)
          for (std::size_t b = 0; b < 24; ++b) sum[a * 24 + b] += answers[a] * answers[b];
      }
  const auto patches = static_cast<double>(images * (data.image.h - 1) * (data.image.w - 1));
  for (double& s : sum) s /= patches;
  return sum;
}

TEST(Whiten, AnswersAreUncorrelatedAndOfOneSize) {
  const Dataset data = smooth();
  const std::vector<float> filters = filters_of(data, 15, 1e-6f);
  const std::vector<double> found = moments(data, 15, filters);
  for (std::size_t a = 0; a < 24; ++a)
    for (std::size_t b = 0; b < 24; ++b) {
      const double expected = a == b ? 1 : a % 12 == b % 12 ? -1 : 0;
      EXPECT_NEAR(found[a * 24 + b], expected, 1e-3) << a << " " << b;
    }
  const std::vector<double> of_all = moments(data, 20, filters);  // the control: other images, other moments
  EXPECT_GT(std::abs(of_all[0] - 1) + std::abs(of_all[1]), 1e-3);
  double size = 0, smaller = 0;
  for (int i = 0; i < 12; ++i) size += filters[static_cast<std::size_t>(i)] * filters[static_cast<std::size_t>(i)];
  for (const float x : filters_of(data, 15, 1)) smaller = std::max(smaller, std::abs(double{x}));
  EXPECT_LT(size, 1);     // the largest eigenvalue of 12 numbers of deviation 1 that go together
  EXPECT_LE(smaller, 1);  // no factor is above 1 / sqrt(epsilon)
}

TEST(Whiten, RefusesWhatDoesNotFit) {
  const Dataset data = smooth();
  Graph g;
  g.parameter("stem.weight", {12, 2, 2, 3}, uniform(1), 4);
  g.parameter("gray.weight", {8, 2, 2, 1}, uniform(1), 4);
  for (const char* name : {"stem.weight", "gray.weight", "other.weight"})
    EXPECT_THROW(whiten(g, name, data), Error) << name;
}

TEST(Whiten, TheFirstStepsOfItsNetHaveFiltersThatStay) {
  const Loader loader(std::make_shared<const Dataset>(digits(Split::train, {.batch = 8, .limit = 8}).dataset()),
                      {.batch = 4});
  Graph g;
  const Inputs in = inputs(g, loader);
  const Value logits = airbench94(in.images, 10);
  whiten(g, "whitening.weight", loader.dataset());
  Trainer trainer(cross_entropy(logits, in.labels), {.device = cpu_device(), .precision = Precision::f16()});
  const Parameters& p = trainer.parameters();
  const auto before = p.weight(p.find("whitening.weight")).read(), bias = p.weight(p.find("whitening.bias")).read(),
             gamma = p.weight(p.find("group1.norm1.weight")).read();
  for (int epoch = 0; epoch < 2; ++epoch) trainer.epoch(loader);
  EXPECT_EQ(p.weight(p.find("whitening.weight")).read(), before);
  EXPECT_EQ(p.weight(p.find("group1.norm1.weight")).read(), gamma);
  EXPECT_NE(p.weight(p.find("whitening.bias")).read(), bias);
}

}  // namespace
}  // namespace halftone

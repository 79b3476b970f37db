// What a host program may do around the library: threads of its own, and forks.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "halftone/data/rendered_digits.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/train/inputs.hpp"
#include "halftone/train/trainer.hpp"

namespace halftone {
namespace {

Loader digits(int workers) {
  return Loader(std::make_shared<Dataset>(rendered_digits(Split::train, 64)),
                {.batch = 16, .workers = workers, .prefetch = 2});
}

/// The loss of a first step.
double first_step(const Device& device) {
  const Loader loader = digits(0);
  Graph graph;
  const auto [images, labels] = inputs(graph, loader);
  Trainer trainer(cross_entropy(mlp(images), labels), {.device = device});
  Epoch epoch = loader.epoch(0);
  return trainer.step(*epoch.next()).loss;
}

TEST(Embedding, ThreadsMayShareADevice) {
  const Device device = cpu_device({.threads = 2});
  const double loss = first_step(device);
  const std::size_t peak = device.peak();
  EXPECT_EQ(device.allocated(), 0u);
  std::vector<std::thread> threads;
  std::vector<double> losses(4);
  for (double& x : losses) threads.emplace_back([&] { x = first_step(device); });
  for (std::thread& thread : threads) thread.join();
  for (double x : losses) EXPECT_EQ(x, loss);
  EXPECT_EQ(device.allocated(), 0u);
  EXPECT_GE(device.peak(), peak);
  EXPECT_LE(device.peak(), 4 * peak);
}

/// What a forked child ends with, which runs `body`; it may take twenty seconds.
template <class F>
int status_of_child(F&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    std::exit(body());
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

TEST(Embedding, AForkWithAnOpenEpochEnds) {
  const Loader loader = digits(2);
  auto epoch = std::make_unique<Epoch>(loader.epoch(0));
  ASSERT_NE(epoch->next(), nullptr);
  EXPECT_EQ(status_of_child([&] {
              try {
                epoch->next();
                return 1;
              } catch (const Error&) {
              }
              *epoch = loader.epoch(1);
              const bool served = epoch->next() != nullptr;
              epoch.reset();
              return served ? 0 : 2;
            }),
            0);
  EXPECT_NE(epoch->next(), nullptr);
}

TEST(Embedding, AForkMayTrain) {
  const Device device = cpu_device({.threads = 2});
  const double loss = first_step(device);
  EXPECT_EQ(status_of_child([&] { return first_step(device) == loss ? 0 : 1; }), 0);
}

}  // namespace
}  // namespace halftone

#include "tests/cuda/training.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/unchanged_weights.hpp"

// Whole trainings through the CUDA backend, on a GPU or on the host's twin of one, beside the same on the CPU.
namespace halftone {
namespace {

using namespace test;

/// The difference of two trainings' weights in units of how far they went.
double distance(const Training& a, const Training& b) {
  double difference = 0, way = 0;
  for (std::size_t i = 0; i < a.after.size(); ++i) {
    difference += std::pow(double{a.after[i]} - b.after[i], 2);
    way += std::pow(double{a.after[i]} - a.before[i], 2);
  }
  return std::sqrt(difference / way);
}

/// Its convolutions sum the products that a GPU's sum.
Device direct_cpu() { return cpu_device({.algorithms = "direct"}); }

/// Sums have another order, so a number may be rounded to the neighbour of the CPU's; each step's losses agree to a
/// rounding of the logits, and so do the ways that the weights went.
void expect_as_on_the_cpu(const Case& c, const std::string& precision, double epsilon) {
  const Training cpu = train(c, options_on(direct_cpu(), precision), 3),
                 gpu = train(c, options_on(cuda_device(), precision), 3);
  EXPECT_TRUE(cpu.before == gpu.before) << "the weights are drawn alike";
  EXPECT_EQ(cpu.scales, gpu.scales);
  EXPECT_EQ(cpu.skipped, gpu.skipped);
  for (std::size_t i = 0; i < cpu.losses.size(); ++i)
    EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 2 * epsilon * cpu.losses[i]) << precision << ", step " << i + 1;
  EXPECT_GT(distance(cpu, {{}, {}, {}, cpu.before, cpu.before, {}}), 0.99);  // the control: weights that stay
  EXPECT_LT(distance(cpu, gpu), 8 * epsilon) << precision;
}

TEST(CudaTraining, LenetTrainsAsOnTheCpu) {
  expect_as_on_the_cpu(lenet, "f32", 0x1p-18);
  expect_as_on_the_cpu(lenet, "f16", epsilon_of(DType::f16));
  expect_as_on_the_cpu(lenet, "bf16", epsilon_of(DType::bf16));
}

/// Where a rounding falls otherwise a relu may flip, and twenty layers of batch norm over few numbers make much of it.
TEST(CudaTraining, ResnetTrainsAsOnTheCpu) {
  expect_as_on_the_cpu(resnet, "f32", 0x1p-14);
  for (const DType type : {DType::f16, DType::bf16}) {
    const Training cpu = train(resnet, options_on(direct_cpu(), name_of(type)), 2),
                   gpu = train(resnet, options_on(cuda_device(), name_of(type)), 2);
    EXPECT_EQ(cpu.skipped, gpu.skipped);
    for (std::size_t i = 0; i < cpu.losses.size(); ++i)
      EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 4 * epsilon_of(type) * cpu.losses[i]) << name_of(type);
    EXPECT_LT(distance(cpu, gpu), 0.3) << name_of(type);
  }
}

TEST(CudaTraining, OtherNumberSystemsTrainAsOnTheCpu) {
  for (const char* precision :
       {"bf16_pure:kahan", "bf16_pure:stochastic", "fixed:6.10:stochastic", "fixed:6.10:nearest"})
    expect_as_on_the_cpu(lenet, precision, 2 * epsilon_of(DType::bf16));
}

/// Coarser ones: after one step the masters went the same way, but for numbers of the way that were rounded to the
/// neighbour; where weights lie on a grid, few lie on another point of it.
TEST(CudaTraining, CoarseSystemsTrainAsOnTheCpu) {
  for (const char* precision :
       {"fp8:current", "fp8:delayed", "int8", "mxfp8", "nvfp4", "binary", "dynamic_fixed:16/24"}) {
    const auto train_on = [&](const Device& device) {
      TrainerOptions options = options_on(device, precision);
      options.precision.range_steps = 0;
      return train(lenet, options, 1);
    };
    const Training cpu = train_on(cpu_device()), gpu = train_on(cuda_device());
    EXPECT_TRUE(cpu.before == gpu.before) << precision;
    EXPECT_FALSE(cpu.before == cpu.after) << precision;
    EXPECT_NEAR(gpu.losses[0], cpu.losses[0], epsilon_of(DType::e4m3) * cpu.losses[0]) << precision;
    std::size_t differ = 0;
    for (std::size_t i = 0; i < cpu.after.size(); ++i) differ += cpu.after[i] != gpu.after[i];
    EXPECT_TRUE(distance(cpu, gpu) < epsilon_of(DType::e4m3) || differ < cpu.after.size() / 100)
        << precision << ": " << distance(cpu, gpu) << ", " << differ << " of " << cpu.after.size();
  }
}

TEST(CudaTraining, CountsWeightsThatUpdatesLeftAsTheyAre) { expect_unchanged_weights_counted(cuda_device()); }

/// The same backend, but nothing is captured: every step is enqueued anew.
class Eager final : public Backend {
 public:
  explicit Eager(std::shared_ptr<Backend> backend) : backend_(std::move(backend)) {}
  std::string name() const override { return backend_->name(); }
  std::string description() const override { return backend_->description(); }
  void* allocate(std::size_t bytes) override { return backend_->allocate(bytes); }
  void free(void* memory, std::size_t bytes) noexcept override { backend_->free(memory, bytes); }
  void upload(void* device, const void* host, std::size_t bytes) override { backend_->upload(device, host, bytes); }
  void download(void* host, const void* device, std::size_t bytes) override { backend_->download(host, device, bytes); }
  void synchronize() override { backend_->synchronize(); }
  std::function<void()> capture(std::function<void()> enqueue) override { return enqueue; }
  void* stream() override { return backend_->stream(); }
  const KernelTable& kernels() const override { return backend_->kernels(); }

 private:
  std::shared_ptr<Backend> backend_;
};

Device fresh_device() { return Device(cuda::make_backend(cuda::make_driver(0))); }

TEST(CudaTraining, CapturedStepsHaveTheBitsOfEnqueuedOnes) {
  const Training captured = train(lenet, overflowing(fresh_device()), 8);
  EXPECT_TRUE(
      same(captured,
           train(lenet, overflowing(Device(std::make_shared<Eager>(cuda::make_backend(cuda::make_driver(0))))), 8)));
  const auto skips = std::count(captured.skipped.begin(), captured.skipped.end(), true);
  EXPECT_GT(skips, 0);
  EXPECT_LT(skips, 8);
}

TEST(CudaTraining, OverflowsSkipTheStepsThatTheCpuSkips) {
  const Training cpu = train(lenet, overflowing(cpu_device()), 8), gpu = train(lenet, overflowing(fresh_device()), 8);
  EXPECT_EQ(cpu.skipped, gpu.skipped);
  EXPECT_EQ(cpu.scales, gpu.scales);
}

TEST(CudaTraining, LooksAheadAndFreezesAsTheCpuDoes) {
  for (const auto& [name, epsilon] :
       {std::pair{"f32", 0x1p-18}, {"f16", epsilon_of(DType::f16)}, {"fixed:6.10:nearest", epsilon_of(DType::f16)}}) {
    const auto train_on = [&, precision = name](const Device& device) {
      TrainerOptions options = options_on(device, precision);
      options.average_decay = 0.9f;
      options.lookahead = 2;
      options.groups = {{.scope = "conv1", .until = 1}};
      return train(lenet, options, 3);
    };
    EXPECT_LT(distance(train_on(direct_cpu()), train_on(cuda_device())), 8 * epsilon) << name;
  }
  const auto frozen_after_a_step = [](const Device& device) {
    TrainerOptions options = options_on(device, "f16");
    options.groups = {{.until = 1}};
    return train(lenet, options, 3);
  };
  const Training cpu = frozen_after_a_step(direct_cpu());
  EXPECT_LT(distance(cpu, frozen_after_a_step(cuda_device())), 8 * epsilon_of(DType::f16));
  EXPECT_GT(distance(cpu, train(lenet, options_on(cuda_device(), "f16"), 3)), 0.1);  // the control: none is frozen
}

TEST(CudaTraining, ASteadyStepAllocatesNothingAndWaitsForNoStepButOldOnes) {
  auto driver = cuda::make_driver(0);
  const cuda::Driver& watched = *driver;
  const Device device(cuda::make_backend(std::move(driver)));
  const Loader loader = noise(lenet.image, 2, 24);
  Graph graph;
  const Inputs in = inputs(graph, loader.dataset(), 2);
  Trainer trainer(cross_entropy(lenet5(in.images), in.labels), options_on(device, "f16"));
  std::vector<cuda::Driver::Counts> counts;
  trainer.epoch(loader, [&](const StepReport&) {
    counts.push_back(watched.counts);
    return true;
  });
  const auto &early = counts[12], &late = counts[18];  // six steps
  EXPECT_EQ(late.allocations, early.allocations);
  EXPECT_EQ(late.synchronizations, early.synchronizations);
  EXPECT_EQ(late.launches, early.launches) << "a step is one captured graph";
  EXPECT_LE(late.waits - early.waits, 6 * 3);  // its report, and two uploads that the device is done with
}

TEST(CudaDevice, ItsNameChoosesOne) {
  EXPECT_EQ(device_by_name("cuda:0").backend().name(), "cuda");
  for (const char* name : {"cuda:1000", "cuda:x", "cuda:-1", "cuda:0.5", "cuda:"})
    EXPECT_THROW(device_by_name(name), Error) << name;
}

}  // namespace
}  // namespace halftone

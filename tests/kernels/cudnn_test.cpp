#ifdef HALFTONE_HAS_CUDNN
#include "kernels/cuda/cudnn.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>

#include "halftone/nn/models.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/tensor/error.hpp"
#include "halftone/train/pipeline.hpp"
#include "kernels/cuda/driver.hpp"
#include "kernels/cuda/library.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone::cuda {
namespace {

// All of these keys are needed; truth values are 0 and 1.
const std::string h100 = R"({
  "cudaDeviceId": 0, "deviceName": "NVIDIA H100 80GB HBM3", "deviceVer": 900, "driverVer": 13000, "isTccDriver": 0,
  "l2CacheSize": 52428800, "maxBlockSize": [1024, 1024, 64], "maxCtasPerSM": 32,
  "maxGridSize": [2147483647, 65535, 65535], "maxRegistersPerSM": 65536, "maxSharedMemoryPerBlock": 49152,
  "maxSharedMemoryPerBlockOptin": 232448, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048,
  "memClockRateKHz": 2619000, "multiProcessorCount": 132, "pciDeviceId": 0, "regsPerBlock": 65536,
  "reservedSharedMemoryPerBlock": 1024, "smClockRateKHz": 1980000, "supportCoopLaunch": 1,
  "totalGlobalMem": 85520809984, "warpSize": 32})";

// What cuDNN says of a real one.
const std::string h200 =
    R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
    R"("multiProcessorCount":132,"warpSize":32,"maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":232448,)"
    R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"maxCtasPerSM":32,"maxThreadsPerBlock":1024,)"
    R"("maxThreadsPerSM":2048,"pciDeviceId":6,"isTccDriver":0,"supportCoopLaunch":1,"totalGlobalMem":150109880320,)"
    R"("smClockRateKHz":1980000,"memClockRateKHz":3201000,"l2CacheSize":62914560,"cudaDeviceId":0,"deviceVer":900,)"
    R"("driverVer":13000,"deviceName":"NVIDIA H200"})";

constexpr DType formats[] = {DType::f32, DType::f16, DType::bf16};
constexpr Direction directions[] = {Direction::forward, Direction::d_input, Direction::d_weight};

class Cudnn : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = why_no_cudnn(); !reason.empty()) GTEST_SKIP() << reason;
  }
  /// One for all tests, which ask it anew about what differs.
  static const ConvolutionPlans& plans() {
    static const ConvolutionPlans all(h100);
    return all;
  }
};

/// The three tensors in one format.
Convolution convolution(const ConvProblem& p, Direction direction, DType format) {
  const ValueSpec x{{p.n, p.h, p.w, p.c}, format}, weight{{p.k, p.r, p.s, p.c / p.groups}, format};
  const ValueSpec y{{p.n, p.p, p.q, p.k}, format};
  switch (direction) {
    case Direction::forward:
      return {p, direction, {{x, weight}, y}};
    case Direction::d_input:
      return {p, direction, {{y, weight}, x}};
    case Direction::d_weight:
      break;
  }
  return {p, direction, {{x, y}, weight}};
}

/// 128 images of 32x32 with 3x3 windows, same extent out.
ConvProblem problem(int channels, int filters, int groups = 1) {
  return {.n = 128,
          .h = 32,
          .w = 32,
          .c = channels,
          .k = filters,
          .r = 3,
          .s = 3,
          .p = 32,
          .q = 32,
          .pad_h = 1,
          .pad_w = 1,
          .groups = groups};
}

template <class... Operations>
std::optional<Convolution> convolution_in(const Request& request) {
  std::optional<Convolution> found;
  (void)((dynamic_cast<const Operations*>(&request.op) && (found = convolution_of<Operations>(request), true)) || ...);
  return found;
}

/// All convolutions and dense layers of a training, gradients among them.
std::vector<Convolution> convolutions_of(const Net& net, DType format) {
  Graph graph;
  Shape image = net.image;
  image.n = 128;
  const Value pixels = graph.input("images", image, DType::u8),
              labels = graph.input("labels", {128, 1, 1, 1}, DType::i32);
  const std::vector<float> ones(static_cast<std::size_t>(image.c), 1.0f);
  const Value loss = cross_entropy(net.build(normalize(pixels, ones, ones), net.classes), labels);
  Precision precision;
  precision.storage = RoleStorage::all(format);
  const Device device = cpu_device({.threads = 1});
  const Graph training = for_training(graph, loss.id(), {.device = device, .precision = precision});
  std::vector<Convolution> found;
  for (const Node& node : training->nodes) {
    const auto inputs = training.specs(node.inputs), outputs = training.specs(node.outputs);
    if (auto one = convolution_in<Conv2d, Conv2dDInput, Conv2dDWeight, Dense, DenseDInput, DenseDWeight>(
            {*node.op, inputs, outputs, device}))
      found.push_back(std::move(*one));
  }
  return found;
}

void expect_plans_for_the_built_in_nets(const ConvolutionPlans& plans) {
  const auto start = std::chrono::steady_clock::now();
  for (const char* name : {"lenet5", "gupta", "mlp", "resnet20", "resnet18"}) {
    for (const DType format : formats) {
      std::size_t nodes = 0, all = 0, on_tensor_cores = 0, first_on_tensor_cores = 0, workspace = 0;
      for (const Convolution& one : convolutions_of(net_by_name(name), format)) {
        SCOPED_TRACE(fmt::format("{}: {}", name, description_of(one)));
        EXPECT_EQ(decline_storages(one), "");
        const auto allowed = plans.allowed(one);
        ++nodes;
        if (allowed.empty()) {
          ADD_FAILURE() << "no plan";
          continue;
        }
        all += allowed.size();
        first_on_tensor_cores += allowed[0].tensor_cores;
        workspace = std::max(workspace, allowed[0].workspace);
        const auto is_fast = [](const ConvolutionPlan& plan) { return plan.tensor_cores; };
        EXPECT_TRUE(format == DType::f32 || std::any_of(allowed.begin(), allowed.end(), is_fast));
        for (const ConvolutionPlan& plan : allowed) {
          on_tensor_cores += plan.tensor_cores;
          EXPECT_FALSE(format == DType::f32 && plan.tensor_cores);
          EXPECT_LE(plan.workspace, plans.options().workspace);
        }
        EXPECT_EQ(plans.rebuilt(one, allowed[0]), allowed[0]);
      }
      EXPECT_GE(nodes, 8u);
      fmt::print("{:9} {:5}: {:3} nodes, {:5} plans, {:5} on tensor cores; of the first ones {:3}, at most {} bytes\n",
                 name, name_of(format), nodes, all, on_tensor_cores, first_on_tensor_cores, workspace);
    }
  }
  fmt::print("{}: {} s\n", plans.name(),
             std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

TEST_F(Cudnn, HasPlansForTheBuiltInNetsOnAnH100) { expect_plans_for_the_built_in_nets(plans()); }
TEST_F(Cudnn, HasPlansForTheBuiltInNetsOnAnH200) { expect_plans_for_the_built_in_nets(ConvolutionPlans(h200)); }

TEST_F(Cudnn, HasPlansForGroupsStridesAndDilations) {
  ConvProblem strided = problem(16, 32), dilated = problem(16, 32);
  strided.stride_h = strided.stride_w = 2;
  strided.p = strided.q = 16;
  dilated.dilation_h = dilated.dilation_w = dilated.pad_h = dilated.pad_w = 2;
  const std::pair<const char*, ConvProblem> problems[] = {{"dense", problem(64, 64)},
                                                          {"groups", problem(64, 64, 8)},
                                                          {"depthwise", problem(64, 64, 64)},
                                                          {"strided", strided},
                                                          {"dilated", dilated}};
  for (const auto& [name, p] : problems) {
    for (const DType format : formats) {
      for (const Direction direction : directions) {
        const Convolution one = convolution(p, direction, format);
        SCOPED_TRACE(description_of(one));
        const auto allowed = plans().allowed(one);
        EXPECT_FALSE(allowed.empty());
        for (const ConvolutionPlan& plan : allowed) EXPECT_EQ(plans().rebuilt(one, plan), plan) << plan.engine;
      }
    }
  }
}

TEST_F(Cudnn, HasPlansForBiasAndRelu) {
  for (const DType format : formats) {
    Convolution one = convolution(problem(64, 64), Direction::forward, format);
    one.operands.inputs.push_back({{1, 1, 1, 64}, format});
    EXPECT_GT(plans().allowed(one).size(), 0u);
    one.activation = Relu();
    EXPECT_GT(plans().allowed(one).size(), 0u);
    one.activation = Gelu();
    EXPECT_EQ(decline_storages(one), "an activation other than relu");
    one.operands.inputs[2].storage = DType::e4m3;
    EXPECT_EQ(decline_storages(one), "a bias in another storage");
  }
}

TEST_F(Cudnn, PadsAtOneEndOnly) {
  ConvProblem p = problem(16, 32);
  p.r = p.s = 4;  // the odd zero is at the bottom and right
  for (const DType format : formats) {
    for (const Direction direction : directions) {
      const Convolution one = convolution(p, direction, format);
      EXPECT_FALSE(plans().allowed(one).empty()) << description_of(one);
    }
  }
}

TEST_F(Cudnn, MultipliesF32OnTensorCoresOnlyWhereAsked) {
  const Convolution one = convolution(problem(64, 64), Direction::forward, DType::f32);
  for (const ConvolutionPlan& plan : plans().allowed(one)) EXPECT_FALSE(plan.tensor_cores);
  const auto with_tf32 = ConvolutionPlans(h100, {.tf32 = true}).allowed(one);
  EXPECT_GT(with_tf32.size(), plans().allowed(one).size());
  EXPECT_TRUE(with_tf32.at(0).tensor_cores);
}

TEST_F(Cudnn, LeavesOutPlansThatWantMuchWorkspace) {
  const Convolution one = convolution(problem(64, 64, 64), Direction::d_weight, DType::f16);
  const ConvolutionPlans frugal(h100, {.workspace = 0});
  for (const ConvolutionPlan& plan : frugal.allowed(one)) EXPECT_EQ(plan.workspace, 0u);
  EXPECT_LT(frugal.allowed(one).size(), plans().allowed(one).size());
}

TEST_F(Cudnn, IsNotAskedAboutOtherStorages) {
  Convolution one = convolution(problem(16, 16), Direction::forward, DType::f16);
  EXPECT_EQ(decline_storages(one), "");
  one.operands.inputs[0].storage = DType::f32;
  EXPECT_EQ(decline_storages(one), "tensors in different storages");
  EXPECT_THROW(plans().allowed(one), Error);
  for (const Storage& storage : {Storage(DType::e4m3), Storage::fixed(8, 8), Storage(DType::f16, Rounding::stochastic),
                                 Storage::blocks(DType::e4m3, 32)})
    EXPECT_EQ(decline_storages({one.problem, one.direction, {{{{}, storage}, {{}, storage}}, {{}, storage}}}),
              "a storage other than f32, f16 and bf16");
}

TEST_F(Cudnn, RefusesDevicesThatItDoesNotKnow) {
  std::string without_a_key = h100, with_a_truth_value = h100;
  without_a_key.replace(without_a_key.find("\"warpSize\""), 10, "\"warpSIZE\"");
  with_a_truth_value.replace(with_a_truth_value.find("\"isTccDriver\": 0"), 16, "\"isTccDriver\": false");
  for (const std::string& text : {std::string(), std::string("{"), std::string("no JSON"), std::string("{}"),
                                  without_a_key, with_a_truth_value}) {
    try {
      const ConvolutionPlans refused(text);
      ADD_FAILURE() << text;
    } catch (const Failure& failure) {
      EXPECT_TRUE(std::string(failure.what()).starts_with("the description of a device: cuDNN: ")) << failure.what();
    }
  }
}

TEST_F(Cudnn, RefusesProblemsAndPlansThatCannotBe) {
  try {
    plans().allowed(convolution(problem(64, 64, 5), Direction::forward, DType::f16));
    ADD_FAILURE() << "5 groups of 64 channels";
  } catch (const Failure& failure) {
    EXPECT_TRUE(std::string(failure.what()).starts_with("forward f16 x 128x32x32x64, weight 64x3x3x12, "))
        << failure.what();
  }
  const Convolution one = convolution(problem(64, 64), Direction::forward, DType::f16);
  ConvolutionPlan plan = plans().allowed(one).at(0);
  plan.engine = 123456;
  EXPECT_THROW(plans().rebuilt(one, plan), Failure);
  plan.engine = -1;
  EXPECT_THROW(plans().rebuilt(one, plan), Failure);
}

TEST_F(Cudnn, SaysForWhichDevicePlansAre) {
  EXPECT_EQ(plans().name(), "cuDNN " + cudnn_version() + ", NVIDIA H100 80GB HBM3");
  const Convolution one = convolution(problem(64, 64), Direction::d_input, DType::bf16);
  EXPECT_EQ(ConvolutionPlans(plans().device_text()).allowed(one), plans().allowed(one));
}

// Without cuDNN.

/// Writes down what it is told to do.
struct FakeDriver final : Driver {
  std::string log;
  DeviceFacts no_facts;
  const DeviceFacts& facts() const override { return no_facts; }
  void* allocate(std::size_t) override { return nullptr; }
  void free(void*) noexcept override {}
  void* allocate_pinned(std::size_t) override { return nullptr; }
  void free_pinned(void*) noexcept override {}
  void clear(void*, std::size_t) override {}
  void copy_in(void*, const void*, std::size_t) override {}
  void copy_out(void*, const void*, std::size_t) override {}
  void launch(const KernelCode&, unsigned, const void*) override {}
  Event make_event() override { return nullptr; }
  void free_event(Event) noexcept override {}
  void record(Event) override {}
  void wait(Event) override {}
  void synchronize() override { log += 's'; }
  void begin_capture() override { log += '('; }
  std::shared_ptr<void> end_capture() override { return log += ')', nullptr; }
  void replay(void*) override { log += 'r'; }
  void* native_stream() override { return nullptr; }
};

TEST(CudnnKernel, NeedsAStreamOfAGpu) {
  FakeDriver driver;
  EXPECT_EQ(decline_cudnn(convolution(problem(16, 16), Direction::forward, DType::f16), driver, false), "no GPU");
  EXPECT_EQ(decline_cudnn(convolution(problem(16, 16), Direction::forward, DType::u8), driver, false),
            "a storage other than f32, f16 and bf16");
}

TEST(Tuning, TimesCapturedRuns) {
  FakeDriver driver;
  EXPECT_GE(milliseconds_of(driver, [&] { driver.log += 'e'; }), 0);
  EXPECT_EQ(driver.log, "es(eeeeeeeeee)rsrsrs");
  driver.log.clear();
  int calls = 0;
  const auto third_fails = [&] {
    if (++calls == 3) throw Failure("no room");
  };
  EXPECT_THROW(milliseconds_of(driver, third_fails), Failure);
  EXPECT_EQ(driver.log, "s()");
}

ConvolutionPlan numbered(std::int64_t engine) { return {.engine = engine, .knobs = {{2, engine}, {13, 7}}}; }

std::string content_of(const std::filesystem::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

TEST(PlanCache, KeepsWhatItIsGiven) {
  const TemporaryFolder folder;
  const auto file = folder / "deeper/plans.json";
  const PlanCache cache(file);
  EXPECT_FALSE(cache.find("a"));
  cache.store("a", numbered(1));
  PlanCache(file).store("b", numbered(2));
  cache.store("a", numbered(3));
  EXPECT_EQ(PlanCache(file).find("a"), numbered(3));
  EXPECT_EQ(cache.find("b"), numbered(2));
  EXPECT_FALSE(cache.find("c"));
}

TEST(PlanCache, TakesADamagedFileForAnEmptyOne) {
  const TemporaryFolder folder;
  const auto file = folder / "plans.json";
  for (const char* text :
       {"", "{", "\0\xff", "[]", "1", R"({"format": 2, "plans": {"a": [1, []]}})", R"({"format": 1})",
        R"({"format": 1, "plans": []})", R"({"format": 1, "plans": {"a": 1}})", R"({"format": 1, "plans": {"a": []}})",
        R"({"format": 1, "plans": {"a": ["1", []]}})", R"({"format": 1, "plans": {"a": [1, [[2]]]}})",
        R"({"format": 1, "plans": {"a": [1, [["2", 3]]]}})", R"({"format": 1, "plans": {"a": {"engine": 1}}})"}) {
    std::ofstream(file) << text;
    EXPECT_FALSE(PlanCache(file).find("a")) << text;
    PlanCache(file).store("b", numbered(4));
    EXPECT_EQ(PlanCache(file).find("b"), numbered(4)) << text;
    EXPECT_EQ(content_of(file).back(), '\n');
  }
}

TEST(PlanCache, IsOffWhereItCannotBeWritten) {
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "";
  for (const std::filesystem::path& file : {std::filesystem::path(), folder / "file/plans.json", folder / ""}) {
    PlanCache(file).store("a", numbered(1));
    EXPECT_FALSE(PlanCache(file).find("a")) << file;
  }
}

TEST(Tuning, TakesTheFastestOfTheFirstFew) {
  const TemporaryFolder folder;
  const PlanCache cache(folder / "plans.json");
  const std::vector<ConvolutionPlan> plans = {numbered(0), numbered(1), numbered(2), numbered(3), numbered(4)};
  std::vector<std::int64_t> timed;
  const auto time = [&](const ConvolutionPlan& plan) {
    timed.push_back(plan.engine);
    if (plan.engine == 3) throw Failure("no room");
    return plan.engine == 2 ? 1.0 : plan.engine == 4 ? 0.1 : 2.0;
  };
  EXPECT_EQ(tuned(cache, "a", plans, time), 2u);
  EXPECT_EQ(timed, (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(tuned(cache, "a", plans, time), 2u);  // from the cache
  EXPECT_EQ(timed.size(), 4u);
  cache.store("a", numbered(9));  // no longer offered
  EXPECT_EQ(tuned(cache, "a", plans, time), 2u);
  EXPECT_EQ(timed.size(), 8u);
  EXPECT_EQ(tuned(PlanCache({}), "a", plans, time), 2u);
  EXPECT_EQ(timed.size(), 12u);
}

TEST(Tuning, TakesTheFirstWhereNothingCanBeTimed) {
  const TemporaryFolder folder;
  const PlanCache cache(folder / "plans.json");
  const std::vector<ConvolutionPlan> plans = {numbered(0), numbered(1)};
  EXPECT_EQ(tuned(cache, "a", plans, [](const ConvolutionPlan&) -> double { throw Failure("no room"); }), 0u);
  EXPECT_FALSE(cache.find("a"));
}

}  // namespace
}  // namespace halftone::cuda
#else
#include <gtest/gtest.h>

TEST(Cudnn, IsAbsent) { GTEST_SKIP() << "this build has no cuDNN"; }
#endif

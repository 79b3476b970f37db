#include "tests/graph/toy_device.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "halftone/halftone.hpp"

// What a backend may count on, and what the library may not do behind its back: every test trains on a device whose
// memory the host cannot touch, and compares bits with the CPU.
namespace halftone {
namespace {

using test::ToyBackend;

constexpr std::int64_t batch = 8;

Loader noise(float poison = 0) {
  std::vector<float> pixels(48 * 8 * 8 * 3);
  std::vector<std::int32_t> labels(48);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = uniform(5, 0, 0, i);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(bits(6, 0, 0, i) % 4);
  Dataset data = in_memory("noise", {1, 8, 8, 3}, pixels, labels, 4);
  if (poison != 0) std::memcpy(data.pixels.data() + 20 * data.image_bytes(), &poison, sizeof poison);
  return Loader(std::make_shared<const Dataset>(std::move(data)), {.batch = batch, .shuffle = false});
}

struct Net {
  Graph graph;
  Value labels, logits;
};

/// Batch norm, dropout, an operation of the host's, and a relu that stands alone in front of a convolution.
Net net(bool with_custom = false) {
  Net result;
  const Inputs in = inputs(result.graph, noise().dataset(), batch);
  Value x = max_pool2d(relu(batch_norm(conv2d(in.images, 8, 3))), 2);
  if (with_custom) x = quantize(x, [](float v) { return std::nearbyint(v * 16) / 16; });
  x = relu(conv2d(relu(scale(x, 2.0f)), 6, 3));
  result.labels = in.labels;
  result.logits = dense(dropout(global_avg_pool(x), 0.2f), 4);
  return result;
}

TrainerOptions options_on(Device device, Precision precision = Precision::f16()) {
  TrainerOptions options;
  options.device = std::move(device);
  options.precision = std::move(precision);
  options.optimizer = adamw();
  options.average_decay = 0.9f;
  options.accumulate = 2;
  return options;
}

Device toy(std::vector<Pass> passes = {}, int ahead = 0) {
  return Device(std::make_shared<ToyBackend>(std::move(passes), ahead));
}
ToyBackend& backend_of(const Trainer& trainer) { return static_cast<ToyBackend&>(trainer.options().device.backend()); }

/// Everything that outlives a step, fetched as a checkpoint fetches it.
std::vector<float> lasting(const Trainer& trainer) {
  std::vector<float> all;
  const Parameters& p = trainer.parameters();
  for (const auto& slot : p.entries)
    for (const TensorView& view : {p.weight(slot), p.truth(slot), p.view(Store::slot0, slot),
                                   p.view(Store::slot1, slot), p.view(Store::average, slot)}) {
      const auto values = view.read();
      all.insert(all.end(), values.begin(), values.end());
    }
  for (std::size_t i = 0; i < p.statistics.size(); ++i) {
    const auto values = p.statistic(i).read();
    all.insert(all.end(), values.begin(), values.end());
  }
  const StepState state = p.read_state();
  all.push_back(static_cast<float>(state.steps)), all.push_back(static_cast<float>(state.attempts));
  all.push_back(state.scale.scale);
  return all;
}

struct Outcome {
  std::vector<float> lasting;
  std::vector<std::int64_t> attempts;
  double loss, accuracy, averaged;
  bool operator==(const Outcome&) const = default;
};

Outcome train(const Net& net, Trainer& trainer, const Loader& loader) {
  Outcome outcome;
  for (int epoch = 0; epoch < 2; ++epoch)
    outcome.loss = trainer
                       .epoch(loader,
                              [&](const StepReport& step) {
                                outcome.attempts.push_back(step.attempt);
                                return true;
                              })
                       .loss;
  const Value hits = accuracy(net.logits, net.labels);
  outcome.accuracy = trainer.evaluate(loader, hits), outcome.averaged = trainer.evaluate(loader, hits, true);
  outcome.lasting = lasting(trainer);
  return outcome;
}

Outcome train_on(const Device& device, bool with_custom = false, const Loader& loader = noise()) {
  const Net n = net(with_custom);
  Trainer trainer(cross_entropy(n.logits, n.labels), options_on(device));
  return train(n, trainer, loader);
}

TEST(ToyDevice, TrainsAndEvaluatesWithTheBitsOfTheCpu) {
  const Outcome expected = train_on(cpu_device());
  for (int ahead : {0, 1, 3, 100}) EXPECT_TRUE(train_on(toy({}, ahead)) == expected) << ahead << " steps ahead";
}

TEST(ToyDeviceDeathTest, TheHostCannotTouchItsMemory) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const Tensor tensor(toy(), {Shape::vector(4), DType::f32});
  EXPECT_DEATH(*static_cast<float*>(tensor.view().data) = 1, "");
}

TEST(ToyDevice, TheHostWaitsForNoStepThatItNeedNotKnow) {
  const Net n = net();
  Trainer trainer(cross_entropy(n.logits, n.labels), options_on(toy({}, 100)));
  EXPECT_EQ(backend_of(trainer).captures, 1);  // the whole step
  const int before = backend_of(trainer).drains;
  trainer.epoch(noise());
  EXPECT_LE(backend_of(trainer).drains - before, 2);  // for the reports, and for the scale at the end
  const Net eager = net();
  Trainer each(cross_entropy(eager.logits, eager.labels), options_on(toy({}, 0)));
  const int start = backend_of(each).drains;
  each.epoch(noise());
  EXPECT_GE(backend_of(each).drains - start, 6);  // the control: six batches, six waits
}

TEST(ToyDevice, AFaultIsNotBlamedOnABatchThatCameLater) {
  for (const int ahead : {0, 3}) {
    const Net n = net();
    TrainerOptions options = options_on(toy({}, ahead));
    options.accumulate = 1;
    Trainer trainer(cross_entropy(n.logits, n.labels), options);
    std::string reason;
    trainer.epoch(noise(std::numeric_limits<float>::quiet_NaN()), [&](const StepReport& step) {
      if (!std::isfinite(step.loss)) reason = step.reason;
      return true;
    });
    EXPECT_NE(reason.find("the first output that is not finite is that of"), std::string::npos) << reason;
    EXPECT_EQ(reason.find("of input") != std::string::npos, ahead == 0) << reason;
  }
}

TEST(ToyDevice, OperationsOfTheHostRunBetweenCapturedOnes) {
  const Net n = net(true);
  Trainer trainer(cross_entropy(n.logits, n.labels), options_on(toy()));
  EXPECT_EQ(backend_of(trainer).captures, 3);  // before, between and after forward and backward body
  EXPECT_TRUE(train(n, trainer, noise()) == train_on(cpu_device(), true));
}

TEST(ToyDevice, OperationsOfTheHostRoundByTheStepsRandomNumbers) {
  Precision precision = Precision::bf16();
  precision.storage.activations.rounding = Rounding::stochastic;
  const auto trained_on = [&](const Device& device) {
    const Net n = net(true);
    Trainer trainer(cross_entropy(n.logits, n.labels), options_on(device, precision));
    return train(n, trainer, noise());
  };
  EXPECT_TRUE(trained_on(toy()) == trained_on(cpu_device()));
}

TEST(ToyDevice, StepsUnderWayChangeNothingOnceAPolicyStops) {
  const auto stopped_on = [](const Device& device) {
    const Net n = net();
    TrainerOptions options = options_on(device);
    options.accumulate = 1;
    options.precision.loss_scale = LossScale::dynamic({.on_nan = OnNan::stop});
    Trainer trainer(cross_entropy(n.logits, n.labels), options);
    int reports = 0;
    const EpochReport report = trainer.epoch(noise(NAN), [&](const StepReport&) { return ++reports > 0; });
    EXPECT_TRUE(report.stopped);
    EXPECT_EQ(reports, 3);
    EXPECT_EQ(trainer.attempts(), 3);
    EXPECT_EQ(trainer.batches(), 3);
    const Loader more = noise();
    Epoch batches = more.epoch(0);
    const StepReport after = trainer.step(*batches.next());
    EXPECT_TRUE(after.stop && after.skipped);
    EXPECT_EQ(after.reason, "the loss scale's policy has stopped training");
    return lasting(trainer);
  };
  EXPECT_EQ(stopped_on(toy({}, 3)), stopped_on(cpu_device()));
}

TEST(ToyDevice, CheckpointsGoFromDeviceToDevice) {
  const auto folder = std::filesystem::temp_directory_path() / ("halftone-toy-" + std::to_string(::getpid()));
  const Net a = net(), b = net();
  Trainer on_toy(cross_entropy(a.logits, a.labels), options_on(toy({}, 2)));
  Trainer on_cpu(cross_entropy(b.logits, b.labels), options_on(cpu_device()));
  on_toy.epoch(noise());
  on_toy.save(folder);
  on_cpu.load(folder);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(lasting(on_toy), lasting(on_cpu));
  on_toy.epoch(noise()), on_cpu.epoch(noise());
  EXPECT_EQ(lasting(on_toy), lasting(on_cpu));
}

TEST(ToyDevice, StepsThatNobodyAskedAboutAreForgottenByALoad) {
  const auto folder = std::filesystem::temp_directory_path() / ("halftone-toy-load-" + std::to_string(::getpid()));
  const Net n = net();
  Trainer trainer(cross_entropy(n.logits, n.labels), options_on(toy({}, 2)));
  trainer.save(folder);
  EXPECT_THROW(trainer.epoch(noise(), [](const StepReport&) -> bool { throw std::runtime_error("mine"); }),
               std::runtime_error);
  trainer.load(folder);
  std::filesystem::remove_all(folder);
  int batches = 0;
  const EpochReport report = trainer.epoch(noise(), [&](const StepReport&) { return ++batches > 0; });
  EXPECT_EQ(batches, 6);
  EXPECT_FALSE(report.stopped);
}

TEST(ToyDevice, AnObserverWhoStopsTooLateStopsNothing) {
  const Net n = net();
  Trainer trainer(cross_entropy(n.logits, n.labels), options_on(toy({}, 2)));
  int batches = 0;
  EXPECT_FALSE(trainer.epoch(noise(), [&](const StepReport&) { return ++batches < 5; }).stopped);  // the sixth runs
  EXPECT_EQ(batches, 6);
  EXPECT_TRUE(trainer.epoch(noise(), [&](const StepReport&) { return ++batches < 8; }).stopped);
}

/// Before a group freezes the host waits for the steps under way; what it hears then may be the end.
TEST(ToyDevice, AnObserverWhoStopsWhileAFreezeIsAwaitedStopsTheEpoch) {
  const Net n = net();
  TrainerOptions options = options_on(toy({}, 100));
  options.accumulate = 1;
  options.groups = {{.scope = "conv1", .until = 3}};
  Trainer trainer(cross_entropy(n.logits, n.labels), options);
  int reports = 0;
  EXPECT_TRUE(trainer.epoch(noise(), [&](const StepReport&) { return ++reports < 2; }).stopped);
  EXPECT_EQ(reports, 3);
  EXPECT_EQ(trainer.attempts(), 3);
  trainer.epoch(noise(), [&](const StepReport&) { return ++reports > 0; });  // the control
  EXPECT_EQ(trainer.attempts(), 6);
}

TEST(ToyDevice, GradientsCanBeChecked) {
  Graph g;
  const Value x = g.input("x", {4, 1, 1, 6}), target = g.input("target", {4, 1, 1, 3});
  const Value loss = mean_squared_error(tanh(dense(x, 3)), target);
  std::vector<float> numbers(24), wanted(12, 0.5f);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = uniform(1, 0, 0, i);
  EXPECT_TRUE(check_gradient(loss, {numbers, wanted}, {.device = toy()}).passed());
}

// ---- A device's own pass ----

/// `inner` with an activation in front of one of its inputs, which is therefore never stored outside the kernel.
struct Prologue final : Op {
  std::shared_ptr<const Op> inner, activate;
  std::size_t input;
  ValueSpec activated;
  std::string name() const override { return "activation+" + inner->name(); }
  Arity arity() const override { return inner->arity(); }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override { return inner->infer(inputs); }
  Launch lower(const Request& request) const override {
    std::vector<ValueSpec> inputs(request.inputs.begin(), request.inputs.end());
    const std::span<const ValueSpec> before(&request.inputs[input], 1), after(&activated, 1);
    inputs[input] = activated;
    const Launch first = choose_kernel({*activate, before, after, request.device}).launch;
    const Launch second = choose_kernel({*inner, inputs, request.outputs, request.device}).launch;
    const std::size_t bytes = (activated.tensor().bytes() + 63) / 64 * 64;
    return {[=, input = input](const Arguments& a) {
              std::vector<Memory> inner_inputs(a.inputs.begin(), a.inputs.end());
              const Memory activated[] = {{a.workspace}};
              void* rest = static_cast<std::byte*>(a.workspace) + bytes;
              first.run({a.inputs.subspan(input, 1), activated, rest, a.state, a.stream});
              inner_inputs[input] = activated[0];
              second.run({inner_inputs, a.outputs, rest, a.state, a.stream});
            },
            bytes + std::max(first.workspace, second.workspace)};
  }
};

template <class Operation>
bool is(const Node& node) {
  return dynamic_cast<const Operation*>(node.op.get()) != nullptr;
}

/// Which input of a node may take the activation in front; -1 where none may.
int prologue_input(const Node& node) {
  if (is<Conv2d>(node) || is<Conv2dDWeight>(node)) return 0;
  return is<ActivationGradient>(node) ? 1 : -1;
}

/// Moves an activation into all its readers at once: forward pass, weight gradient and its own gradient.
void move_activations(Graph& graph, const Device&, std::span<const int> keep) {
  const auto readers_of = readers(graph);
  std::vector<Node> rest;
  for (Node& node : graph->nodes) {
    if (!node.op->as_activation() || std::find(keep.begin(), keep.end(), node.outputs[0]) != keep.end()) {
      rest.push_back(node);
      continue;
    }
    const int y = node.outputs[0];
    const auto& all = readers_of[static_cast<std::size_t>(y)];
    const auto takes = [&](int reader) {
      const Node& r = graph->nodes[static_cast<std::size_t>(reader)];
      const int input = prologue_input(r);
      return input >= 0 && std::count(r.inputs.begin(), r.inputs.end(), y) == 1 &&
             r.inputs[static_cast<std::size_t>(input)] == y;
    };
    if (all.empty() || !std::all_of(all.begin(), all.end(), takes)) {
      rest.push_back(node);
      continue;
    }
    for (int reader : all) {
      Node& r = graph->nodes[static_cast<std::size_t>(reader)];
      auto op = std::make_shared<Prologue>();
      op->inner = r.op, op->activate = node.op, op->activated = graph.info(y).spec;
      op->input = static_cast<std::size_t>(prologue_input(r));
      r.inputs[op->input] = node.inputs[0];
      r.op = op;
    }
  }
  graph->nodes = std::move(rest);
}

/// A weight in an order that only the toy's kernels know: its bytes, each turned over.
struct Pack final : Op {
  std::string name() const override { return "toy_pack"; }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override {
    return {{Shape::vector(static_cast<std::int64_t>(inputs[0].tensor().bytes())), DType::u8, Role::exact}};
  }
  Launch lower(const Request& request) const override;
};

void turn_over(const void* from, void* to, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    static_cast<unsigned char*>(to)[i] = static_cast<unsigned char>(~static_cast<const unsigned char*>(from)[i]);
}

Launch Pack::lower(const Request& request) const {
  auto& backend = static_cast<ToyBackend&>(request.device.backend());
  return {[&backend, bytes = request.inputs[0].tensor().bytes()](const Arguments& a) {
    backend.enqueue([from = a.in(0), to = a.out(0), bytes] { turn_over(from, to, bytes); });
  }};
}

/// `inner` with its weight, input 1, in the packed order.
struct FromPacked final : Op {
  std::shared_ptr<const Op> inner;
  ValueSpec weight;
  std::string name() const override { return "packed+" + inner->name(); }
  Arity arity() const override { return inner->arity(); }
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override { return inner->infer(inputs); }
  Launch lower(const Request& request) const override {
    std::vector<ValueSpec> inputs(request.inputs.begin(), request.inputs.end());
    inputs[1] = weight;
    const Launch launch = choose_kernel({*inner, inputs, request.outputs, request.device}).launch;
    auto& backend = static_cast<ToyBackend&>(request.device.backend());
    const std::size_t bytes = weight.tensor().bytes(), padded = (bytes + 63) / 64 * 64;
    return {[=, &backend](const Arguments& a) {
              backend.enqueue([from = a.in(1), to = a.workspace, bytes] { turn_over(from, to, bytes); });
              std::vector<Memory> unpacked(a.inputs.begin(), a.inputs.end());
              unpacked[1] = {a.workspace};
              launch.run({unpacked, a.outputs, static_cast<std::byte*>(a.workspace) + padded, a.state, a.stream});
            },
            padded + launch.workspace};
  }
};

/// Packs each convolution's weight once a step for the forward pass and the data gradient.
void pack_weights(Graph& graph, const Device&, std::span<const int>) {
  std::map<int, int> packed;
  std::vector<Node> old;
  std::swap(old, graph->nodes);
  for (Node& node : old) {
    if (is<Conv2d>(node) || is<Conv2dDInput>(node)) {
      const int weight = node.inputs[1];
      if (!packed.contains(weight))
        packed[weight] = graph.add_one(std::make_shared<Pack>(), {graph.value(weight)}).id();
      auto op = std::make_shared<FromPacked>();
      op->inner = node.op, op->weight = graph.info(weight).spec;
      node.inputs[1] = packed[weight];
      node.op = op;
    }
    graph->nodes.push_back(std::move(node));
  }
}

int count(const Trainer& trainer, const std::string& operation) {
  int n = 0;
  for (const auto& report : trainer.plan().kernels()) n += report.kernel.starts_with(operation + "/");
  return n;
}

TEST(ToyDevice, APassMovesAnActivationIntoAllItsReaders) {
  const Net plain = net(), moved = net();
  Trainer a(cross_entropy(plain.logits, plain.labels), options_on(toy()));
  Trainer b(cross_entropy(moved.logits, moved.labels), options_on(toy({move_activations})));
  EXPECT_EQ(count(a, "activation"), 1);
  EXPECT_EQ(count(b, "activation"), 0);
  for (const char* operation : {"conv2d", "conv2d_d_weight", "activation_gradient"})
    EXPECT_EQ(count(b, std::string("activation+") + operation), 1) << operation;
  for (const Node& node : a.plan().graph()->nodes)
    if (node.op->as_activation()) {
      for (const auto& placement : b.plan().placements()) EXPECT_NE(placement.value, node.outputs[0]);
    }
  EXPECT_TRUE(train(plain, a, noise()) == train(moved, b, noise()));  // running statistics among it
}

TEST(ToyDevice, APassKeepsTensorsInAnOrderOfItsOwn) {
  const Net plain = net(), packed = net();
  Trainer a(cross_entropy(plain.logits, plain.labels), options_on(cpu_device()));
  Trainer b(cross_entropy(packed.logits, packed.labels), options_on(toy({pack_weights, move_activations})));
  EXPECT_EQ(count(b, "toy_pack"), 2);
  EXPECT_EQ(count(b, "packed+conv2d"), 2);
  EXPECT_EQ(count(b, "packed+conv2d_d_input"), 1);
  EXPECT_TRUE(train(plain, a, noise()) == train(packed, b, noise()));
}

}  // namespace
}  // namespace halftone

#include "halftone/train/checkpoint.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

/// A small net in the middle of its second step of two micro-batches, and its checkpoint.
struct Checkpoint : ::testing::Test {
  TemporaryFolder folder;
  Graph graph;
  std::unique_ptr<Trainer> trainer;

  Checkpoint() {
    std::vector<std::uint8_t> pixels(4 * 4 * 4);
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(37 * i);
    const Dataset data = in_memory("toy", {1, 4, 4, 1}, pixels, {0, 1, 1, 0}, 2);
    const Inputs in = inputs(graph, data, 4);
    TrainerOptions options{.device = cpu_device({.threads = 1}), .optimizer = adamw(), .accumulate = 2};
    options.average_decay = 0.5f;
    trainer =
        std::make_unique<Trainer>(cross_entropy(dense(batch_norm(conv2d(in.images, 2, 3)), 2), in.labels), options);
    for (int i = 0; i < 3; ++i) trainer->step(Batch{4, data.pixels, data.labels});
    trainer->save(folder / "");
  }

  std::string load() const {
    try {
      trainer->load(folder / "");
    } catch (const FileError& error) {
      return error.what();
    }
    return {};
  }

  std::vector<std::byte> memory() const {
    std::vector<std::byte> all;
    const Parameters& p = trainer->parameters();
    for (const Store store :
         {Store::weights, Store::slot0, Store::slot1, Store::average, Store::accumulated, Store::statistics})
      all.insert(all.end(), p.data(store), p.data(store) + p.bytes(store));
    const StepState state = p.read_state();
    const auto bytes = std::as_bytes(std::span(&state, 1));
    all.insert(all.end(), bytes.begin(), bytes.end());
    return all;
  }

  /// Loads what `change` has made of a file; it must be refused in one line with file and tensor, and change nothing.
  void expect_refused(const std::string& file, const std::string& tensor,
                      const std::function<void(SafeTensors&)>& change) {
    SafeTensors content = read_safetensors(folder / file);
    const SafeTensors before = content;
    change(content);
    write_safetensors(folder / file, content.tensors, content.metadata);
    const auto kept = memory();
    const std::string message = load();
    for (const std::string& part : {(folder / file).string(), tensor})
      EXPECT_NE(message.find(part), std::string::npos) << tensor << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_EQ(memory(), kept) << message;
    write_safetensors(folder / file, before.tensors, before.metadata);
  }

  void expect_state_refused(const std::function<void(StepState&)>& change) {
    expect_refused("state.safetensors", "step_state", [&](SafeTensors& content) {
      StoredTensor& tensor = named(content, "step_state");
      StepState state;
      std::memcpy(&state, tensor.data.data(), sizeof state);
      change(state);
      std::memcpy(tensor.data.data(), &state, sizeof state);
    });
  }

  static StoredTensor& named(SafeTensors& content, const std::string& name) {
    return const_cast<StoredTensor&>(content.at(name));
  }
};

TEST_F(Checkpoint, IsTakenAsItWasWritten) {
  EXPECT_EQ(load(), "");
  const auto once = memory();
  EXPECT_EQ(trainer->batches(), 3);
  EXPECT_EQ(load(), "");
  EXPECT_EQ(memory(), once);
}

TEST_F(Checkpoint, NumbersThatAreNotFiniteAreRefused) {
  for (const char* file : {"model.safetensors", "state.safetensors"})
    for (const StoredTensor& tensor : read_safetensors(folder / file).tensors)
      for (const float bad : {nan, infinity, -infinity})
        if (tensor.dtype == DType::f32)
          expect_refused(file, tensor.name, [&](SafeTensors& content) {
            std::vector<std::byte>& data = named(content, tensor.name).data;
            std::memcpy(data.data() + data.size() - sizeof bad, &bad, sizeof bad);
          });
}

TEST_F(Checkpoint, AStateThatNoTrainingLeavesIsRefused) {
  for (const float scale : {nan, infinity, 0.0f, -1.0f, std::numeric_limits<float>::denorm_min()}) {
    expect_state_refused([&](StepState& s) { s.scale.scale = scale; });
    expect_state_refused([&](StepState& s) { s.used_scale = scale; });
  }
  for (const double share : {-0.5, 1.5, std::nan("")}) {
    expect_state_refused([&](StepState& s) { s.zero_gradient_shares = share; });
    expect_state_refused([&](StepState& s) { s.unchanged_weight_shares = share; });
  }
  for (const std::int64_t count : {std::int64_t{-1}, std::int64_t{2}, std::numeric_limits<std::int64_t>::min()})
    expect_state_refused([&](StepState& s) { s.steps = count; });
  for (const std::int32_t count : {-1, 2, 1000}) expect_state_refused([&](StepState& s) { s.micro_batch = count; });
  for (const std::int32_t count : {-1, 3}) expect_state_refused([&](StepState& s) { s.good_micro_batches = count; });
  expect_state_refused([](StepState& s) { ++s.attempts; });
  expect_state_refused([](StepState& s) { ++s.seed; });
  expect_state_refused([](StepState& s) { s.scale.good_steps = -1; });
  expect_state_refused([](StepState& s) { s.scale.bad_steps = -1; });
  expect_state_refused([](StepState& s) { s.scale.consecutive_skips = -1; });
  expect_state_refused([](StepState& s) { s.scale.stop = 2; });
  expect_state_refused([](StepState& s) { s.zero_gradients = -1; });
  expect_state_refused([](StepState& s) { s.loss_sum = std::nan(""); });
}

TEST_F(Checkpoint, AStateInAnotherFormatIsRefused) {
  const auto refused = [&](const std::function<void(StoredTensor&)>& change) {
    expect_refused("state.safetensors", "step_state",
                   [&](SafeTensors& content) { change(named(content, "step_state")); });
  };
  refused([](StoredTensor& t) {
    t.dtype = DType::f32;
    t.shape = {static_cast<std::int64_t>(t.data.size() / sizeof(float))};
  });
  refused([](StoredTensor& t) {
    t.data.resize(t.data.size() + 8);
    t.shape = {static_cast<std::int64_t>(t.data.size())};
  });
}

TEST_F(Checkpoint, AModelAloneIsCheckedToo) {
  const auto file = folder / "model.safetensors";
  load_model(file, trainer->parameters());
  SafeTensors content = read_safetensors(file);
  const std::string name = content.tensors.back().name;
  std::memcpy(named(content, name).data.data(), &nan, sizeof nan);
  write_safetensors(file, content.tensors, content.metadata);
  const auto kept = memory();
  EXPECT_THROW(load_model(file, trainer->parameters()), FileError);
  EXPECT_EQ(memory(), kept);
}

}  // namespace
}  // namespace halftone

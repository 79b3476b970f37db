#include "halftone/inspect/capsule.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

constexpr int places = 5;  // where a fault can sit

/// What goes wrong: a number of what a node gives, on the way forward or back.
struct Fault {
  int place;
  bool backward;
  float value;
  std::size_t index;
};

/// A net of f32 numbers with something between its layers that hands on what it gets, but for the fault.
struct Net {
  std::shared_ptr<const Dataset> data = std::make_shared<Dataset>(rendered_digits(Split::train, 64));
  Loader loader{data, {.batch = 16}};
  Graph graph;
  Inputs in = inputs(graph, loader);
  Value loss;
  std::shared_ptr<bool> armed = std::make_shared<bool>(false);

  explicit Net(const std::optional<Fault>& fault) {
    Value x = in.images;
    for (int place = 0; place < places; ++place) {
      x = place < 2 ? gelu(conv2d(x, 3, 3, {.stride = 2})) : dense(x, 12);
      CustomOptions options{.name = "place" + std::to_string(place)};
      const auto pass = [armed = armed](std::size_t from, std::optional<Fault> f) {
        return [=](std::span<const FloatTensor> in, std::span<const FloatTensor> out) {
          std::copy(in[from].values.begin(), in[from].values.end(), out[0].values.begin());
          if (f && *armed) out[0].values[f->index] = f->value;
        };
      };
      const bool here = fault && fault->place == place;
      options.forward = pass(0, here && !fault->backward ? fault : std::nullopt);
      options.backward = pass(2, here && fault->backward ? fault : std::nullopt);
      x = custom({x}, options);
    }
    loss = cross_entropy(dense(x, 10), in.labels);
  }

  TrainerOptions options(bool keep_values) const {
    TrainerOptions result;
    result.device = cpu_device({.threads = 2});
    result.keep_values = keep_values;
    return result;
  }
};

TEST(Capsule, TwentyFaultsAreNamedEachByItsTensor) {
  const TemporaryFolder folder;
  int number = 0;
  for (const bool backward : {false, true}) {
    for (int place = 0; place < places; ++place) {
      for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        const Fault fault{place, backward, value, static_cast<std::size_t>(7 + 13 * place)};
        SCOPED_TRACE(testing::Message() << "place " << place << (backward ? " backward " : " forward ") << value);
        const Net net(fault);
        Trainer trainer(net.loss, net.options(false));
        Epoch batches = net.loader.epoch(0);
        trainer.step(*batches.next());
        *net.armed = true;
        const StepState before = trainer.parameters().read_state();
        const StepReport bad = trainer.step(*batches.next());
        ASSERT_TRUE(bad.skipped);
        const auto capsule = folder / std::to_string(number++);
        EXPECT_EQ(write_capsule(capsule, trainer, before).reason, bad.reason);

        Trainer again(net.loss, net.options(true));
        const Replay done = replay(capsule, again);
        EXPECT_TRUE(done.same_bits);
        EXPECT_EQ(done.report.reason, bad.reason);
        ASSERT_TRUE(done.first);
        EXPECT_TRUE(done.first->node.find("place" + std::to_string(place)) != std::string::npos)
            << to_string(*done.first);
        EXPECT_EQ(done.first->backward, backward);
        EXPECT_EQ(done.first->role, backward ? "activation_gradients" : "activations");
        EXPECT_EQ(done.first->index, static_cast<std::int64_t>(fault.index));
        EXPECT_EQ(std::isnan(done.first->value), std::isnan(value));
        EXPECT_EQ(std::signbit(done.first->value) && !std::isnan(value), !std::isnan(value));
        EXPECT_EQ(done.first->count, 1);
        EXPECT_EQ(done.first->first, std::max<std::int64_t>(done.first->index - 3, 0));
        EXPECT_EQ(done.first->around.size(), 7u);
      }
    }
  }
  EXPECT_EQ(number, 20);
}

TEST(Capsule, AStepWithoutFaultHasTheSameBitsAndNothingBad) {
  const TemporaryFolder folder;
  const Net net(std::nullopt);
  Trainer trainer(net.loss, net.options(false));
  trainer.epoch(net.loader);
  const StepReport first = write_capsule(folder / "c", trainer, trainer.parameters().read_state());
  Trainer again(net.loss, net.options(true));
  const Replay done = replay(folder / "c", again);
  EXPECT_TRUE(done.same_bits);
  EXPECT_EQ(done.report.loss, first.loss);
  EXPECT_FALSE(done.first);

  const Net other(Fault{1, false, 1e30f, 3});  // a control: one number of the forward pass is another
  *other.armed = true;
  Trainer differs(other.loss, other.options(true));
  EXPECT_FALSE(replay(folder / "c", differs).same_bits);
}

TEST(Capsule, DamagedOnesAreOneSentence) {
  const TemporaryFolder folder;
  const Net net(std::nullopt);
  Trainer trainer(net.loss, net.options(true));
  trainer.epoch(net.loader);
  const auto capsule = folder / "c";
  write_capsule(capsule, trainer, trainer.parameters().read_state());
  const auto complaint = [&]() -> std::string {
    try {
      replay(capsule, trainer);
    } catch (const FileError& error) {
      return error.what();
    }
    return {};
  };
  ASSERT_EQ(complaint(), "");
  for (const char* name : {"state.safetensors", "capsule.safetensors"}) {
    const auto file = capsule / name;
    std::ifstream in(file, std::ios::binary);
    const std::string whole{std::istreambuf_iterator<char>(in), {}};
    const auto rewrite = [&](const std::string& content) {
      std::ofstream(file, std::ios::binary | std::ios::trunc) << content;
    };
    std::string flipped = whole;
    flipped[flipped.size() - 5] ^= 1;
    rewrite(flipped);
    EXPECT_NE(complaint().find(name), std::string::npos) << "a bit";
    rewrite(whole.substr(0, whole.size() / 2));
    EXPECT_NE(complaint().find(name), std::string::npos) << "half of it";
    rewrite(whole);
    EXPECT_EQ(complaint(), "");
  }
  SafeTensors old = read_safetensors(capsule / "capsule.safetensors");
  old.metadata["version"] = "0.0.1";
  write_safetensors(capsule / "capsule.safetensors", old.tensors, old.metadata);
  EXPECT_NE(complaint().find("written by halftone 0.0.1"), std::string::npos) << complaint();
  std::filesystem::remove(capsule / "capsule.safetensors");
  EXPECT_NE(complaint().find("capsule.safetensors"), std::string::npos);
}

}  // namespace
}  // namespace halftone

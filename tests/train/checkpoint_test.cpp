#include "halftone/train/checkpoint.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "halftone/halftone.hpp"
#include "tests/io/temporary_folder.hpp"

namespace halftone {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

constexpr const char *state_name = "state.safetensors", *model_name = "model.safetensors";

/// What no number's text may be, whatever the number stands for.
const std::vector<std::string> nonsense = {"",  " ",  "x",     "7x",     " 1",  "1 ",   "+1",
                                           "-", "0x", "1e400", "-1e400", "nan", "-nan", "-inf"};

Dataset toy_data() {
  std::vector<std::uint8_t> pixels(4 * 4 * 4);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(37 * i);
  return in_memory("toy", {1, 4, 4, 1}, pixels, {0, 1, 1, 0}, 2);
}

/// A small net in the middle of its second step of two micro-batches.
std::unique_ptr<Trainer> trained(const Precision& precision, int micro_batches = 3) {
  const Dataset data = toy_data();
  const Graph graph;
  const Inputs in = inputs(graph, data, 4);
  TrainerOptions options{
      .device = cpu_device({.threads = 1}), .precision = precision, .optimizer = adamw(), .accumulate = 2};
  options.average_decay = 0.5f;
  auto trainer =
      std::make_unique<Trainer>(cross_entropy(dense(batch_norm(conv2d(in.images, 2, 3)), 2), in.labels), options);
  for (int i = 0; i < micro_batches; ++i) trainer->step(Batch{4, data.pixels, data.labels});
  return trainer;
}

std::vector<std::byte> memory_of(const Trainer& trainer) {
  std::vector<std::byte> all;
  const Parameters& p = trainer.parameters();
  for (const Store store : {Store::weights, Store::masters, Store::slot0, Store::slot1, Store::compensation,
                            Store::average, Store::accumulated, Store::statistics})
    all.insert(all.end(), p.data(store), p.data(store) + p.bytes(store));
  const StepState state = p.read_state();
  const auto ranges = p.read_ranges();
  for (const auto& bytes : {std::as_bytes(std::span(&state, 1)), std::as_bytes(std::span(ranges))})
    all.insert(all.end(), bytes.begin(), bytes.end());
  return all;
}

/// What a call is refused with, and whether a file is blamed for it.
struct Refusal {
  std::string message = "it was taken";
  bool by_file = false;
};

Refusal refusal_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const FileError& error) {
    return {error.what(), true};
  } catch (const Error& error) {
    return {error.what(), false};
  }
  return {};
}

StoredTensor& named(SafeTensors& content, const std::string& name) {
  return const_cast<StoredTensor&>(content.at(name));
}

/// A trainer with weights in bf16, so that it has masters, and its checkpoint.
struct Checkpoint : ::testing::Test {
  TemporaryFolder folder;
  std::unique_ptr<Trainer> trainer = trained(Precision::bf16());

  Checkpoint() { trainer->save(folder / "", {{"net", "toy"}}); }

  void load() { trainer->load(folder / ""); }
  void load_weights(ModelWeights which = ModelWeights::best) {
    load_model(folder / model_name, trainer->parameters(), {.weights = which});
  }
  SafeTensors content(const char* file) const { return read_safetensors(folder / file); }

  /// Calls `read` on what `change` has made of a file; it must be refused in one line that has all `parts`, and change
  /// nothing.
  void expect_refused(const char* file, const std::vector<std::string>& parts,
                      const std::function<void(SafeTensors&)>& change, const std::function<void()>& read,
                      bool by_file = true) {
    const SafeTensors before = content(file);
    SafeTensors changed = before;
    change(changed);
    write_safetensors(folder / file, changed.tensors, changed.metadata);
    const auto memory = memory_of(*trainer);
    const auto [message, blamed] = refusal_of(read);
    for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << ": " << message;
    EXPECT_NE(message.find((folder / file).string()), std::string::npos) << message;
    EXPECT_EQ(blamed, by_file) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_EQ(memory_of(*trainer), memory) << message;
    write_safetensors(folder / file, before.tensors, before.metadata);
  }
  void expect_state_refused(const std::vector<std::string>& parts, const std::function<void(SafeTensors&)>& change) {
    expect_refused(state_name, parts, change, [&] { load(); });
  }
  void expect_field_refused(const std::string& field, const std::string& text) {
    SCOPED_TRACE(field + " = '" + text + "'");
    expect_state_refused({field}, [&](SafeTensors& state) { state.metadata[field] = text; });
  }
  std::vector<std::string> fields(const std::string& prefix) const {
    std::vector<std::string> result;
    for (const auto& [key, value] : content(state_name).metadata)
      if (key.starts_with(prefix)) result.push_back(key);
    return result;
  }
  void change_state(const std::function<void(std::map<std::string, std::string>&)>& change) {
    SafeTensors state = content(state_name);
    change(state.metadata);
    write_safetensors(folder / state_name, state.tensors, state.metadata);
  }
};

TEST_F(Checkpoint, IsTakenAsItWasWritten) {
  const auto before = memory_of(*trainer);
  EXPECT_EQ(trainer->batches(), 3);
  trainer->step(Batch{4, toy_data().pixels, toy_data().labels});
  EXPECT_NE(memory_of(*trainer), before);  // the control
  load();
  const auto once = memory_of(*trainer);
  EXPECT_EQ(trainer->batches(), 3);
  load();
  EXPECT_EQ(memory_of(*trainer), once);
  trainer->save(folder / "again", {{"net", "toy"}});
  for (const char* file : {state_name, model_name}) {
    const SafeTensors first = content(file), again = read_safetensors(folder / "again" / file);
    EXPECT_EQ(first.metadata, again.metadata);
    ASSERT_EQ(first.tensors.size(), again.tensors.size());
    for (std::size_t i = 0; i < first.tensors.size(); ++i) EXPECT_EQ(first.tensors[i].data, again.tensors[i].data);
  }
}

TEST(CheckpointOf, EveryNumberSystemGoesOnWithTheSameBits) {
  Precision moved = Precision::fixed(2, 6, Rounding::stochastic);
  moved.name = "moved";
  for (Storage* s : {&moved.storage.weights, &moved.storage.update, &moved.storage.activations}) {
    s->scaling = Scaling::range;
    s->controller = OverflowRate{.interval = 1};
    s->noticed = true;
  }
  for (const Precision& precision :
       {Precision::f32(), Precision::f16(), Precision::bf16(), Precision::bf16_pure(Precision::Update::stochastic),
        Precision::bf16_pure(Precision::Update::kahan), Precision::fixed(6, 10, Rounding::stochastic), moved}) {
    SCOPED_TRACE(precision.name);
    const TemporaryFolder folder;
    const auto whole = trained(precision), half = trained(precision), other = trained(precision, 0);
    half->save(folder / "");
    other->load(folder / "");
    for (Trainer* trainer : {whole.get(), half.get(), other.get()})
      for (int i = 0; i < 3; ++i) trainer->step(Batch{4, toy_data().pixels, toy_data().labels});
    EXPECT_EQ(memory_of(*other), memory_of(*half));
    EXPECT_EQ(memory_of(*whole), memory_of(*half));
    EXPECT_EQ(precision.name == "moved", !whole->parameters().ranges.empty());
  }
}

TEST_F(Checkpoint, FilesSayWhatTheyHold) {
  const SafeTensors state = content(state_name), model = content(model_name);
  for (const char* store : {"weights", "masters", "accumulated", "slot0", "slot1", "average"})
    EXPECT_TRUE(state.find(std::string(store) + ".conv1.weight")) << store;
  EXPECT_EQ(state.at("weights.conv1.weight").dtype, DType::bf16);
  EXPECT_EQ(state.at("masters.conv1.weight").dtype, DType::f32);
  EXPECT_EQ(state.metadata.at("state.steps"), "1");
  EXPECT_EQ(state.metadata.at("state.micro_batch"), "1");
  EXPECT_EQ(state.metadata.at("seed"), "1");
  EXPECT_EQ(model.metadata.at("net"), "toy");
  EXPECT_EQ(model.metadata.at("weights"), "averaged");
  EXPECT_EQ(model.metadata.at("version"), version);
  const Parameters& p = trainer->parameters();
  for (const auto& slot : p.entries) {
    EXPECT_EQ(model.numbers(slot.name), p.view(Store::average, slot).read()) << slot.name;
    EXPECT_EQ(model.numbers("raw." + slot.name), p.truth(slot).read()) << slot.name;
  }
  for (std::size_t i = 0; i < p.statistics.size(); ++i) {
    const std::string& name = p.statistics[i].name;
    EXPECT_EQ(model.numbers(name), p.statistic(i, Store::averaged_statistics).read());
    EXPECT_EQ(model.numbers("raw." + name), p.statistic(i).read());
    EXPECT_EQ(state.numbers("statistics." + name), p.statistic(i).read());
    EXPECT_EQ(state.numbers("averaged_statistics." + name), p.statistic(i, Store::averaged_statistics).read());
  }
  EXPECT_EQ(model.tensors.size(), 2 * (p.entries.size() + p.statistics.size()));
}

TEST_F(Checkpoint, EachFileIsCompleteInItself) {
  const auto before = memory_of(*trainer);
  std::filesystem::rename(folder / model_name, folder / "elsewhere");
  load();
  EXPECT_EQ(trainer->batches(), 3);
  EXPECT_EQ(refusal_of([&] { read_model_metadata(folder / ""); }).by_file, true);
  std::filesystem::rename(folder / "elsewhere", folder / model_name);
  std::filesystem::remove(folder / state_name);
  load_weights();
  EXPECT_EQ(read_model_metadata(folder / "").at("net"), "toy");
  const Refusal refusal = refusal_of([&] { load(); });
  EXPECT_TRUE(refusal.by_file);
  EXPECT_NE(refusal.message.find(state_name), std::string::npos) << refusal.message;
}

TEST_F(Checkpoint, AModelHasTheWeightsOfBothKinds) {
  const Parameters& original = trainer->parameters();
  const auto other = trained(Precision::f32(), 0);  // of another number system: these files hold f32
  for (const ModelWeights which : {ModelWeights::raw, ModelWeights::best}) {
    load_model(folder / model_name, other->parameters(), {.weights = which});
    for (const auto& slot : original.entries) {
      const Store store = which == ModelWeights::raw ? slot.truth() : Store::average;
      EXPECT_EQ(other->parameters().truth(other->parameters().find(slot.name)).read(),
                original.view(store, slot).read())
          << slot.name;
    }
    EXPECT_EQ(
        other->parameters().statistic(0).read(),
        original.statistic(0, which == ModelWeights::raw ? Store::statistics : Store::averaged_statistics).read());
  }
  const auto& slot = original.find("conv1.weight");
  EXPECT_NE(original.truth(slot).read(), original.view(Store::average, slot).read());  // the control
}

TEST_F(Checkpoint, NumbersThatAreNotFiniteAreRefused) {
  const auto spoil = [](SafeTensors& file, const std::string& name, float bad) {
    StoredTensor& tensor = named(file, name);
    visit_format(tensor.dtype, [&](auto format) {
      const auto code = decltype(format)::encode(bad);
      std::memcpy(tensor.data.data() + tensor.data.size() - sizeof code, &code, sizeof code);
    });
  };
  for (const float bad : {nan, infinity, -infinity}) {
    for (const StoredTensor& tensor : content(state_name).tensors)
      expect_state_refused({"tensor " + tensor.name}, [&](SafeTensors& state) { spoil(state, tensor.name, bad); });
    for (const StoredTensor& tensor : content(model_name).tensors)
      for (const ModelWeights which : {ModelWeights::best, ModelWeights::raw})
        expect_refused(
            model_name, {"tensor " + tensor.name}, [&](SafeTensors& model) { spoil(model, tensor.name, bad); },
            [&] { load_weights(which); });
  }
}

TEST_F(Checkpoint, AFieldThatIsNoNumberOfItsKindIsRefused) {
  const auto all = fields("state.");
  EXPECT_EQ(all.size(), 17u);
  for (const std::string& field : all) {
    for (const std::string& text : nonsense) expect_field_refused(field, text);
    expect_field_refused(field, "inf");
    const bool real = field == "state.scale" || field == "state.used_scale" || field == "state.loss_sum";
    if (field != "state.loss_sum") expect_field_refused(field, "-1");
    if (!real) expect_field_refused(field, "99999999999999999999");  // beyond 64 bits
    if (!real && !field.ends_with("_shares")) expect_field_refused(field, "0.5");
  }
}

TEST_F(Checkpoint, AFieldThatNoTrainingLeavesSoIsRefused) {
  for (const char* field : {"state.scale", "state.used_scale"})
    for (const char* scale : {"0", "-1", "1e-45", "1e39"}) expect_field_refused(field, scale);
  for (const char* field : {"state.zero_gradient_shares", "state.unchanged_weight_shares"})
    for (const char* share : {"-0.5", "1.5"}) expect_field_refused(field, share);
  for (const char* count : {"-1", "2", "-9223372036854775808", "9223372036854775807"})
    expect_field_refused("state.steps", count);
  for (const char* count : {"-1", "1099511627777", "9223372036854775807"})
    expect_field_refused("state.attempts", count);
  for (const char* count : {"-1", "2", "1000", "2147483647"}) expect_field_refused("state.micro_batch", count);
  for (const char* count : {"-1", "2", "3"}) expect_field_refused("state.good_micro_batches", count);
  for (const char* seed : {"2", "18446744073709551615"}) expect_field_refused("state.seed", seed);
  for (const char* field : {"state.good_steps", "state.bad_steps", "state.consecutive_skips"})
    for (const char* count : {"-1", "2147483647", "2147483648"}) expect_field_refused(field, count);
  for (const char* field : {"state.nonfinite_total", "state.zero_gradients"})
    for (const char* count : {"-1", "9223372036854775807"}) expect_field_refused(field, count);
  expect_field_refused("state.stop", "2");
  expect_field_refused("state.outcome", "3");
  load();  // the control
}

TEST_F(Checkpoint, FieldsWithoutWhichNoTrainingGoesOnAreNotMissing) {
  for (const char* field : {"state.seed", "state.attempts", "state.steps", "state.scale"}) {
    std::string text;
    change_state([&](auto& metadata) { text = metadata.extract(field).mapped(); });
    const Refusal refused = refusal_of([&] { load(); });
    EXPECT_TRUE(refused.by_file && refused.message.ends_with(std::string(field) + " is missing")) << refused.message;
    change_state([&](auto& metadata) { metadata[field] = text; });
  }
  load();  // the control
}

TEST_F(Checkpoint, AScaleThatItsPolicyNeverComesToIsRefused) {
  trainer = trained(Precision::f16());
  trainer->save(folder / "", {});
  for (const auto& [scale, good] : {std::pair("1e-37", false), {"3e38", false}, {"5.9604645e-8", true}, {"8", true}}) {
    change_state([&, scale = scale](auto& metadata) { metadata["state.scale"] = scale; });
    const Refusal refused = refusal_of([&] { load(); });
    EXPECT_EQ(refused.message.find("state.scale: ") != std::string::npos && refused.by_file, !good) << refused.message;
  }
}

TEST_F(Checkpoint, AMissingFieldKeepsItsFirstValue) {
  change_state([](auto& metadata) {
    metadata["state.nonfinite_total"] = "5";
    metadata["state.good_steps"] = "6";
    metadata["state.used_scale"] = "8";
    metadata["state.outcome"] = "1";
  });
  load();
  const StepState all = trainer->parameters().read_state();
  EXPECT_EQ(all.nonfinite_total, 5);
  EXPECT_EQ(all.scale.good_steps, 6);
  EXPECT_EQ(all.used_scale, 8);
  EXPECT_EQ(all.outcome, 1);
  change_state([](auto& metadata) {
    for (const char* field : {"state.nonfinite_total", "state.good_steps", "state.used_scale", "state.outcome"})
      EXPECT_EQ(metadata.erase(field), 1u);
  });
  load();
  const StepState some = trainer->parameters().read_state(), first;
  EXPECT_EQ(some.nonfinite_total, first.nonfinite_total);
  EXPECT_EQ(some.scale.good_steps, first.scale.good_steps);
  EXPECT_EQ(some.used_scale, first.used_scale);
  EXPECT_EQ(some.outcome, first.outcome);
  EXPECT_EQ(some.steps, all.steps);
}

/// With a scale that moves: one state per scale is in the file.
struct CheckpointWithRanges : Checkpoint {
  CheckpointWithRanges() {
    Precision precision = Precision::f32();
    precision.storage.weights = DType::i8;
    precision.storage.weights.scaling = Scaling::range;
    precision.storage.weights.noticed = true;
    precision.storage.weights.exponent = -6;
    trainer = trained(precision);
    trainer->save(folder / "");
  }
};

TEST_F(CheckpointWithRanges, FieldsOfAScaleAreCheckedToo) {
  load();
  const auto all = fields("range.conv1.weight.");
  EXPECT_EQ(all.size(), 26u);
  for (const std::string& field : all) {
    for (const std::string& text : nonsense) expect_field_refused(field, text);
    if (field.find("memory") == std::string::npos) expect_field_refused(field, "-1");
  }
  expect_field_refused("range.conv1.weight.scale", "0");
  expect_field_refused("range.conv1.weight.scale", "inf");
  expect_field_refused("range.conv1.weight.noticed.count", "9223372036854775807");
  change_state([](auto& metadata) {
    metadata["range.conv1.weight.scale"] = "0.25";
    for (const char* of : {"noticed", "kept", "total"})  // not in older files
      for (const char* field : {"updated", "unchanged"})
        EXPECT_EQ(metadata.erase(std::string("range.conv1.weight.") + of + '.' + field), 1u);
  });
  load();
  RangeState state;
  std::memcpy(&state, trainer->parameters().range("conv1.weight"), sizeof state);
  EXPECT_EQ(state.scale, 0.25f);
  EXPECT_EQ(state.next, 0.25f);
}

TEST_F(Checkpoint, FilesOfAnotherFormatAreRefused) {
  for (const auto& [format, text] : {std::pair("halftone 1", "0.1.0"), {"halftone 3", "no checkpoint"}, {"", "no"}}) {
    const auto change = [&, format = format](SafeTensors& file) { file.metadata["format"] = format; };
    expect_refused(state_name, {text}, change, [&] { load(); });
    const bool foreign = *format == 0;  // of some other program, which does not say its layout
    expect_refused(
        model_name, {foreign ? "layout" : text}, change, [&] { load_weights(); }, !foreign);
    expect_refused(model_name, {text}, change, [&] { read_model_metadata(folder / ""); });
  }
  expect_state_refused({"no checkpoint"}, [](SafeTensors& state) { state.metadata.clear(); });
}

TEST_F(Checkpoint, TensorsOfAnotherShapeOrFormatAreRefused) {
  const auto both = [&](const std::string& in_state, const std::string& in_model,
                        const std::function<void(SafeTensors&, const std::string&)>& change) {
    expect_state_refused({in_state}, [&](SafeTensors& state) { change(state, in_state); });
    expect_refused(
        model_name, {in_model}, [&](SafeTensors& model) { change(model, in_model); }, [&] { load_weights(); });
  };
  const std::string state = "masters.conv1.weight", model = "conv1.weight";
  both(state, model, [](SafeTensors& file, const std::string& name) {
    StoredTensor& tensor = named(file, name);
    tensor.dtype = DType::u8;
    tensor.shape = {static_cast<std::int64_t>(tensor.data.size())};
  });
  both(state, model, [](SafeTensors& file, const std::string& name) {
    std::swap(named(file, name).shape[0], named(file, name).shape[1]);
  });
  both(state, model, [](SafeTensors& file, const std::string& name) { named(file, name).name = "stranger"; });
  const std::size_t in_state = content(state_name).tensors.size();
  const auto more = [](SafeTensors& file) {
    file.tensors.push_back(file.tensors[0]);
    file.tensors.back().name = "stranger";
  };
  expect_state_refused({std::to_string(in_state + 1), std::to_string(in_state)}, more);
  expect_refused(model_name, {"stranger", "no place"}, more, [&] { load_weights(); });
}

TEST_F(Checkpoint, ADifferentTrainingIsTheCallersMistake) {
  for (const char* key : {"precision", "storage", "optimizer", "ema", "accumulate", "loss-scale", "stress", "seed"}) {
    SCOPED_TRACE(key);
    const std::string own = content(state_name).metadata.at(key);
    expect_refused(
        state_name, {std::string("the checkpoint has ") + key + " another, not " + own},
        [&](SafeTensors& state) { state.metadata[key] = "another"; }, [&] { load(); }, false);
    expect_refused(
        state_name, {std::string(key) + " unknown"}, [&](SafeTensors& state) { state.metadata.erase(key); },
        [&] { load(); }, false);
  }
  expect_refused(
      state_name, {"data digits, not mnist"}, [&](SafeTensors& state) { state.metadata["data"] = "digits"; },
      [&] {
        trainer->load(folder / "", {.fixed = {{"data", "mnist"}}});
      },
      false);
  trainer->save(folder / "", {}, {.fixed = {{"data", "mnist"}}});
  trainer->load(folder / "", {.fixed = {{"data", "mnist"}}});  // the control
}

}  // namespace
}  // namespace halftone

// The state of a small training, changed in fields, tensors and bytes. What loads trains on, and what that saves loads.
#include "halftone/halftone.hpp"
#include "tests/fuzz/input.hpp"

using namespace halftone;

namespace {

std::unique_ptr<Trainer> trainer() {
  Graph graph;
  const Value images = graph.input("images", {2, 2, 2, 1}, DType::f32),
              labels = graph.input("labels", {2, 1, 1, 1}, DType::i32);
  TrainerOptions options{
      .device = cpu_device({.threads = 1}), .precision = Precision::f16(), .optimizer = adamw(), .accumulate = 2};
  options.average_decay = 0.5f;
  return std::make_unique<Trainer>(cross_entropy(dense(batch_norm(conv2d(images, 2, 1)), 2), labels), options);
}

void step(Trainer& trainer) {
  const float images[8] = {1, -2, 3, 0.5f, 0, 1, -1, 2};
  const std::int32_t labels[2] = {0, 1};
  const std::span<const std::byte> inputs[] = {std::as_bytes(std::span(images)), std::as_bytes(std::span(labels))};
  trainer.step(inputs);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const std::filesystem::path from = fuzz::folder() / "from", to = fuzz::folder() / "to";
  static const std::unique_ptr<Trainer> training = trainer();
  static const SafeTensors sound = [] {
    for (int i = 0; i < 3; ++i) step(*training);
    training->save(from);
    return read_safetensors(from / "state.safetensors");
  }();

  FuzzedDataProvider input(bytes, size);
  SafeTensors file = sound;
  const auto field = [&]() -> std::string& {
    auto at = file.metadata.begin();
    std::advance(
        at, input.ConsumeIntegralInRange<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(file.metadata.size()) - 1));
    return at->second;
  };
  constexpr const char* values[] = {"0",
                                    "1",
                                    "-1",
                                    "2",
                                    "1099511627776",
                                    "9223372036854775807",
                                    "18446744073709551615",
                                    "65536",
                                    "1e38",
                                    "1e-38",
                                    "nan",
                                    "inf",
                                    "2147483647",
                                    "4294967296",
                                    "0.5",
                                    "1e308",
                                    "1073741824",
                                    "1152921504606846976"};
  while (input.remaining_bytes() > 0 && !file.tensors.empty()) {
    StoredTensor& tensor = file.tensors[input.ConsumeIntegralInRange<std::size_t>(0, file.tensors.size() - 1)];
    switch (input.ConsumeIntegralInRange(0, 7)) {
      case 0:
        field() = input.PickValueInArray(values);
        break;
      case 1:
        field() = input.ConsumeRandomLengthString(24);
        break;
      case 2:
        file.metadata.erase(file.metadata.begin());
        break;
      case 3:
        file.metadata[input.ConsumeRandomLengthString(24)] = input.ConsumeRandomLengthString(24);
        break;
      case 4:
        if (!tensor.data.empty())
          tensor.data[input.ConsumeIntegralInRange<std::size_t>(0, tensor.data.size() - 1)] =
              static_cast<std::byte>(input.ConsumeIntegral<unsigned char>());
        break;
      case 5:
        tensor.name = input.ConsumeRandomLengthString(24);
        break;
      case 6:
        std::swap(tensor.dtype, file.tensors.front().dtype);
        break;
      case 7:
        std::swap(tensor.data, file.tensors.front().data);
        break;
    }
    if (file.metadata.empty()) break;
  }
  if (!fuzz::answered([&] { write_safetensors(from / "state.safetensors", file.tensors, file.metadata); })) return 0;
  if (!fuzz::answered([&] { training->load(from); })) return 0;
  const StepState state = training->parameters().read_state();
  const bool has_room =
      state.attempts < std::int64_t{1} << 39 && state.nonfinite_total < std::int64_t{1} << 59 &&
      std::max({state.scale.good_steps, state.scale.bad_steps, state.scale.consecutive_skips}) < 1 << 29;
  for (int i = 0; i < 3; ++i) step(*training);
  if (fuzz::answered([&] { training->save(to); }) && has_room) training->load(to);
  return 0;
}

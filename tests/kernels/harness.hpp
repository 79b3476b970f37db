#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "halftone/graph/kernel.hpp"
#include "kernels/cpu/isa.hpp"

namespace halftone::test {

using Doubles = std::vector<double>;

/// What an operation should give, computed plainly from its inputs as they are stored.
using Reference = std::function<std::vector<Doubles>(const std::vector<Doubles>& inputs)>;

/// How far results may lie from the reference; by default they have the bits of the reference rounded to f32, then to
/// the format. Else within output_epsilons * epsilon(output) * |expected| + f32_epsilons * 2^-23 * max(|expected|,
/// scale) and one smallest number.
struct Bound {
  double output_epsilons = 0, f32_epsilons = 0, scale = 0;
};

/// One node with its data, to run with every kernel that the tables list for it.
struct KernelTest {
  const Op& op;
  std::vector<Shape> shapes;               ///< of the inputs
  std::vector<DType> dtypes;               ///< of the inputs, then the outputs; the last one counts for all that follow
  std::vector<std::vector<float>> values;  ///< of the inputs; rounded to their formats
  Reference reference;
  std::vector<Bound> bounds = {};  ///< of the outputs; exact where none is given
  StepState state = {};
  std::vector<ValueSpec> outputs = {};          ///< for operations whose outputs exist already
  std::vector<std::vector<float>> before = {};  ///< what these outputs hold before
};

inline std::vector<float> random_values(std::int64_t count, unsigned seed, float lowest = -2, float highest = 2) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = lowest + (highest - lowest) * static_cast<float>(random() >> 8) * 0x1p-24f;
  return values;
}

/// Integers from `lowest` to `highest`: sums and products of few of them are exact in every format.
inline std::vector<float> random_integers(std::int64_t count, unsigned seed, int lowest = -4, int highest = 4) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values)
    x = static_cast<float>(lowest + static_cast<int>(random() % static_cast<unsigned>(highest - lowest + 1)));
  return values;
}

/// One format for all, and mixtures.
inline const std::vector<std::vector<DType>> dtype_choices = {
    {DType::f32}, {DType::f16}, {DType::bf16}, {DType::f16, DType::f32}, {DType::f32, DType::bf16, DType::f16}};

/// Device memory between two guard zones, 64-byte aligned as in an arena.
class Guarded {
 public:
  Guarded(const Device& device, const std::vector<unsigned char>& content)
      : memory_(device, content.size() + 2 * zone) {
    std::vector<unsigned char> all(memory_.bytes(), guard);
    std::copy(content.begin(), content.end(), all.begin() + zone);
    device.backend().upload(memory_.data(), all.data(), all.size());
  }
  void* data() const { return memory_.data() + zone; }
  std::vector<unsigned char> bytes() const {
    const auto all = everything();
    return {all.begin() + zone, all.end() - zone};
  }
  bool intact() const {
    const auto all = everything();
    const auto is_guard = [](unsigned char byte) { return byte == guard; };
    return std::all_of(all.begin(), all.begin() + zone, is_guard) && std::all_of(all.end() - zone, all.end(), is_guard);
  }

 private:
  std::vector<unsigned char> everything() const {
    std::vector<unsigned char> all(memory_.bytes());
    memory_.device().backend().download(all.data(), memory_.data(), all.size());
    return all;
  }
  static constexpr std::ptrdiff_t zone = 64;
  static constexpr unsigned char guard = 0xfb;  // huge and negative in every format: a read of it shows
  Buffer memory_;
};

inline std::vector<unsigned char> encoded(const std::vector<float>& values, DType dtype) {
  std::vector<unsigned char> bytes(values.size() * size_of(dtype));
  visit_format(dtype, [&](auto format) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto code = format.encode(values[i]);
      std::memcpy(bytes.data() + i * sizeof(code), &code, sizeof(code));
    }
  });
  return bytes;
}

inline Doubles decoded(const std::vector<unsigned char>& bytes, DType dtype) {
  Doubles values(bytes.size() / size_of(dtype));
  visit_format(dtype, [&](auto format) {
    typename decltype(format)::Storage code;
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::memcpy(&code, bytes.data() + i * sizeof(code), sizeof(code));
      values[i] = static_cast<double>(format.decode(code));
    }
  });
  return values;
}

/// The first number that is not as it should be, told in words; empty where there is none.
inline std::string first_difference(const std::vector<unsigned char>& bytes, DType dtype, const Doubles& expected,
                                    const Bound& bound) {
  const Doubles actual = decoded(bytes, dtype),
                rounded = decoded(encoded({expected.begin(), expected.end()}, dtype), dtype);
  if (actual.size() != expected.size()) return fmt::format("the reference has {} numbers", expected.size());
  const double smallest = visit_format(dtype, [](auto format) { return static_cast<double>(format.smallest); });
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] == rounded[i] || (std::isnan(actual[i]) && std::isnan(rounded[i]))) continue;
    const double magnitude = std::abs(expected[i]), share = bound.output_epsilons * epsilon_of(dtype),
                 f32_share = bound.f32_epsilons * 0x1p-23;
    const double allowed =
        share * magnitude + f32_share * std::max(magnitude, bound.scale) + (share + f32_share > 0) * smallest;
    if (!(std::abs(actual[i] - expected[i]) <= allowed))
      return fmt::format("element {} is {}, not {}", i, actual[i], expected[i]);
  }
  return {};
}

/// Memory for one run of a launch.
struct KernelRun {
  Device device;
  std::vector<Guarded> inputs, outputs;
  Guarded state;

  KernelRun(const KernelTest& test, const Device& device, const std::vector<ValueSpec>& in,
            const std::vector<ValueSpec>& out)
      : device(device), state(device, bytes_of(test.state)) {
    for (std::size_t i = 0; i < in.size(); ++i) add(inputs, in[i], &test.values[i]);
    for (std::size_t i = 0; i < out.size(); ++i)
      add(outputs, out[i], i < test.before.size() ? &test.before[i] : nullptr);
  }

  /// Runs; `in_place`: output 0 in the memory of the input that the launch may overwrite. Returns the outputs' bytes.
  std::vector<std::vector<unsigned char>> operator()(const Launch& launch, unsigned char workspace_fill,
                                                     bool in_place = false) {
    const Guarded workspace(device, std::vector<unsigned char>(launch.workspace, workspace_fill));
    std::vector<void*> in, out;
    for (auto& input : inputs) in.push_back(input.data());
    for (auto& output : outputs) out.push_back(output.data());
    if (in_place) out[0] = in[static_cast<std::size_t>(launch.overwrites)];
    launch.run({in, out, workspace.data(), static_cast<StepState*>(state.data()), device.backend().stream()});
    EXPECT_TRUE(workspace.intact()) << "the workspace is too small";
    EXPECT_TRUE(state.intact()) << "writes around the step's state";
    for (auto& input : inputs) EXPECT_TRUE(input.intact()) << "writes around an input";
    for (auto& output : outputs) EXPECT_TRUE(output.intact()) << "writes around an output";
    std::vector<std::vector<unsigned char>> results;
    for (auto& output : outputs) results.push_back(output.bytes());
    if (in_place) results[0] = inputs[static_cast<std::size_t>(launch.overwrites)].bytes();
    return results;
  }

 private:
  static std::vector<unsigned char> bytes_of(const StepState& state) {
    std::vector<unsigned char> bytes(sizeof state);
    std::memcpy(bytes.data(), &state, sizeof state);
    return bytes;
  }

  void add(std::vector<Guarded>& tensors, const ValueSpec& spec, const std::vector<float>* values) const {
    if (!values) return tensors.emplace_back(device, std::vector<unsigned char>(spec.tensor().bytes(), 0xff)), void();
    ASSERT_EQ(static_cast<std::int64_t>(values->size()), spec.shape.elements());
    tensors.emplace_back(device, encoded(*values, spec.dtype));
  }
};

/// Runs one launch in all ways and returns the outputs' bytes.
inline std::vector<std::vector<unsigned char>> check_launch(const KernelTest& test, const Device& device,
                                                            const Launch& launch, const std::vector<ValueSpec>& in,
                                                            const std::vector<ValueSpec>& out,
                                                            const std::vector<Doubles>& expected) {
  KernelRun run(test, device, in, out);
  const KernelRun untouched(test, device, in, out);
  auto results = run(launch, 0xff);
  for (std::size_t i = 0; i < in.size(); ++i)
    EXPECT_EQ(run.inputs[i].bytes(), untouched.inputs[i].bytes()) << "input " << i << " changed";
  for (std::size_t i = 0; i < out.size(); ++i)
    EXPECT_EQ(
        first_difference(results[i], out[i].dtype, expected[i], i < test.bounds.size() ? test.bounds[i] : Bound{}), "")
        << "output " << i;
  EXPECT_TRUE(KernelRun(test, device, in, out)(launch, 0x3c) == results) << "the workspace's former content matters";
  if (launch.overwrites >= 0) {
    EXPECT_TRUE(KernelRun(test, device, in, out)(launch, 0xff, true) == results) << "differs in place";
  }
  return results;
}

/// Every device that kernels are tested on; those with one `name` must give the same bits.
struct TestDevice {
  std::string name;
  Device device;
};
inline std::vector<TestDevice> test_devices() {
  std::vector<TestDevice> devices;
  for (cpu::Isa isa : cpu::all_isas)
    for (int threads : {1, 3})
      if (cpu::supported(isa))
        devices.push_back({cpu::name_of(isa), cpu_device({.threads = threads, .isa = cpu::name_of(isa)})});
  return devices;
}

/// Runs every listed kernel of the operation on every device: each must meet the bound, write nothing else, give the
/// same bits in place and with any thread count. At least one must not decline.
inline void check_kernels(const KernelTest& test) {
  const auto dtype = [&](std::size_t i) { return test.dtypes[std::min(i, test.dtypes.size() - 1)]; };
  std::vector<ValueSpec> in, out = test.outputs;
  for (std::size_t i = 0; i < test.shapes.size(); ++i) in.push_back({test.shapes[i], dtype(i)});
  if (out.empty()) {
    out = test.op.infer(in);
    for (std::size_t i = 0; i < out.size(); ++i) out[i].dtype = dtype(in.size() + i);
  }
  std::vector<Doubles> stored;
  for (std::size_t i = 0; i < in.size(); ++i)
    stored.push_back(decoded(encoded(test.values[i], in[i].dtype), in[i].dtype));
  const auto expected = test.reference(stored);
  int runs = 0;
  std::map<std::string, std::vector<std::vector<unsigned char>>> first_results;
  for (const auto& [device_name, device] : test_devices())
    for (const Kernel& kernel : device.backend().kernels().find(test.op.name())) {
      const std::string name = fmt::format("{}/{} on {}", test.op.name(), kernel.name, device_name);
      std::string where = fmt::format("{}, {}", name, device.backend().description());
      for (const auto& spec : in) where += fmt::format(" {}{}", to_string(spec.shape), name_of(spec.dtype));
      for (const auto& spec : out) where += fmt::format(" -> {}{}", to_string(spec.shape), name_of(spec.dtype));
      SCOPED_TRACE(where);
      const Offer offer = kernel.make({test.op, in, out, device});
      const Launch* launch = std::get_if<Launch>(&offer);
      if (!launch) continue;
      ++runs;
      const auto results = check_launch(test, device, *launch, in, out, expected);
      const auto [first, is_first] = first_results.try_emplace(name, results);
      EXPECT_TRUE(is_first || first->second == results) << "the thread count matters";
      if (testing::Test::HasFailure()) return;
    }
  EXPECT_GT(runs, 0) << test.op.name() << ": no kernel takes this";
}

}  // namespace halftone::test

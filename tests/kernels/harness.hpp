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
#include "kernels/cuda/backend.hpp"
#include "tests/sanitizers.hpp"

namespace halftone::test {

using Doubles = std::vector<double>;

/// What an operation should give, computed plainly from its inputs as they are stored.
using Reference = std::function<std::vector<Doubles>(const std::vector<Doubles>& inputs)>;

/// How far results may lie from the reference; by default they have the bits of the reference rounded to f32, then
/// stored. Else within output_epsilons * epsilon(output) * |expected| + f32_epsilons * 2^-23 * max(|expected|, scale)
/// and one smallest number; where the storage is not plain, what is stored lies between what such bounds in f32 become.
struct Bound {
  double output_epsilons = 0, f32_epsilons = 0, scale = 0;
};

/// One node with its data, to run with every kernel that the tables list for it.
struct KernelTest {
  const Op& op;
  std::vector<Shape> shapes;               ///< of the inputs
  std::vector<Storage> storages;           ///< of the inputs, then the outputs; the last one counts for all that follow
  std::vector<std::vector<float>> values;  ///< of the inputs; rounded to their storages
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

inline Storage in_range(DType code) {
  Storage storage(code);
  storage.scaling = Scaling::range;
  storage.noticed = true;
  return storage;
}

/// The scale of every tensor that has a range.
inline constexpr float range_scale = 0x1p-5f;

/// One storage for all, and mixtures.
inline const std::vector<std::vector<Storage>> storage_choices = {
    {DType::f32},
    {DType::f16},
    {DType::bf16},
    {DType::f16, DType::f32},
    {DType::f32, DType::bf16, DType::f16},
    {Storage::fixed(8, 8)},
    {Storage::fixed(5, 3, Rounding::stochastic)},
    {in_range(DType::i16)},
    {DType::sign},
    {Storage::scaled(DType::e4m3)},
    {Storage::blocks(DType::e2m1, 32), Storage::fixed(8, 8), {DType::e5m2, Rounding::toward_zero}}};

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

inline std::vector<unsigned char> encoded(const std::vector<float>& values, const Storage& storage,
                                          const RandomKey& key = {}, Noticed* noticed = nullptr) {
  const std::int64_t count = std::ssize(values);
  std::vector<unsigned char> bytes(storage.bytes(count));
  write_numbers(storage, reinterpret_cast<std::byte*>(bytes.data()), count, 0, count, values.data(), key, range_scale,
                noticed);
  return bytes;
}

/// Whether what a kernel noticed is what numbers like these give; where they are not `exact`, as many.
inline bool agree(const Noticed& noticed, const Doubles& expected, bool exact, const Storage& storage,
                  const RandomKey& key) {
  Noticed all;
  encoded({expected.begin(), expected.end()}, storage, key, &all);
  if (!storage.noticed) return noticed.count == 0;
  if (!exact) return noticed.count == all.count;
  return noticed.count == all.count && noticed.zeros == all.zeros && noticed.flushed == all.flushed &&
         noticed.saturated == all.saturated && noticed.upper_half == all.upper_half && noticed.largest == all.largest;
}

inline Doubles decoded(const std::vector<unsigned char>& bytes, const Storage& storage, std::size_t count) {
  Doubles values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = read_number(storage, reinterpret_cast<const std::byte*>(bytes.data()), static_cast<std::int64_t>(count),
                            static_cast<std::int64_t>(i), range_scale);
  return values;
}

/// The numbers as they are when they have been stored.
inline Doubles stored(const Doubles& values, const Storage& storage, const RandomKey& key = {}) {
  return decoded(encoded({values.begin(), values.end()}, storage, key), storage, values.size());
}

/// The first number that is not as it should be, told in words; empty where there is none. Rounding is monotonic, also
/// where it draws a number, but for blocks and scaled tensors, whose scales may change.
inline std::string first_difference(const std::vector<unsigned char>& bytes, const Storage& storage,
                                    const Doubles& expected, const Bound& bound, const RandomKey& key = {}) {
  if (bytes.size() != storage.bytes(std::ssize(expected)))
    return fmt::format("the reference has {} numbers", expected.size());
  const double epsilon = storage.plain() ? epsilon_of(storage.code) : 0x1p-23;
  const double smallest =
      storage.plain() ? visit_format(storage.code, [](auto format) { return static_cast<double>(format.smallest); })
                      : 0;
  Doubles low, high;
  for (const double x : expected) {
    const double magnitude = std::abs(x), share = bound.output_epsilons * epsilon,
                 f32_share = bound.f32_epsilons * 0x1p-23;
    const double allowed =
        share * magnitude + f32_share * std::max(magnitude, bound.scale) + (share + f32_share > 0) * smallest;
    low.push_back(x - allowed);
    high.push_back(x + allowed);
  }
  if (!storage.plain()) low = stored(low, storage, key), high = stored(high, storage, key);
  const Doubles actual = decoded(bytes, storage, expected.size()), rounded = stored(expected, storage, key);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] == rounded[i] || (std::isnan(actual[i]) && std::isnan(rounded[i]))) continue;
    if (!(low[i] <= actual[i] && actual[i] <= high[i]))
      return fmt::format("element {} is {}, not {}", i, actual[i], expected[i]);
  }
  return {};
}

template <class T>
std::vector<unsigned char> bytes_of(const T& x) {
  std::vector<unsigned char> bytes(sizeof x);
  std::memcpy(bytes.data(), &x, sizeof x);
  return bytes;
}

/// Memory for one run of a launch.
struct KernelRun {
  static constexpr std::uint32_t first_stream = 100;  ///< of output 0

  /// A tensor with its range.
  struct Operand {
    ValueSpec spec;
    Guarded memory, range;
  };
  Device device;
  std::vector<Operand> inputs, outputs;
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
    std::vector<Memory> in = memories(inputs), out = memories(outputs);
    if (in_place) out[0].data = in[static_cast<std::size_t>(launch.overwrites)].data;
    const Arguments arguments{in, out, workspace.data(), static_cast<StepState*>(state.data()),
                              device.backend().stream()};
    if (launch.prepare) launch.prepare(arguments);
    launch.run(arguments);
    EXPECT_TRUE(workspace.intact()) << "the workspace is too small";
    EXPECT_TRUE(state.intact()) << "writes around the step's state";
    for (auto& input : inputs) EXPECT_TRUE(input.memory.intact()) << "writes around an input";
    std::vector<std::vector<unsigned char>> results;
    for (auto& output : outputs) {
      EXPECT_TRUE(output.memory.intact()) << "writes around an output";
      results.push_back(output.memory.bytes());
    }
    if (in_place) results[0] = inputs[static_cast<std::size_t>(launch.overwrites)].memory.bytes();
    return results;
  }

  Noticed noticed(std::size_t output) const {
    RangeState range;
    device.backend().download(&range, outputs[output].range.data(), sizeof range);
    return range.noticed;
  }

 private:
  static std::vector<Memory> memories(const std::vector<Operand>& operands) {
    std::vector<Memory> result;
    for (const Operand& operand : operands) {
      auto* range = operand.spec.storage.has_range() ? static_cast<RangeState*>(operand.range.data()) : nullptr;
      result.push_back({operand.memory.data(), range, first_stream + static_cast<std::uint32_t>(result.size())});
    }
    return result;
  }

  void add(std::vector<Operand>& operands, const ValueSpec& spec, const std::vector<float>* values) const {
    ASSERT_EQ(values ? std::ssize(*values) : spec.shape.elements(), spec.shape.elements());
    const auto content =
        values ? encoded(*values, spec.storage) : std::vector<unsigned char>(spec.tensor().bytes(), 0xff);
    RangeState range{.scale = range_scale, .next = range_scale};  // the other one must not be used
    if (&operands == &inputs) range.next = 3;
    if (!values) range.scale = 3;
    operands.push_back({spec, {device, content}, {device, bytes_of(range)}});
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
    EXPECT_EQ(run.inputs[i].memory.bytes(), untouched.inputs[i].memory.bytes()) << "input " << i << " changed";
  for (std::size_t i = 0; i < out.size(); ++i) {
    const RandomKey key{test.state.seed, test.state.random_step(),
                        KernelRun::first_stream + static_cast<std::uint32_t>(i)};
    const Bound bound = i < test.bounds.size() ? test.bounds[i] : Bound{};
    EXPECT_EQ(first_difference(results[i], out[i].storage, expected[i], bound, key), "") << "output " << i;
    const bool exact = bound.output_epsilons == 0 && bound.f32_epsilons == 0;
    EXPECT_TRUE(agree(run.noticed(i), expected[i], exact, out[i].storage, key)) << "noticed of output " << i;
  }
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
#if !defined(HALFTONE_TEST_CUDA_ONLY)
inline std::vector<TestDevice> test_devices(const std::string& algorithms = "fastest") {
  std::vector<TestDevice> devices;
  for (cpu::Isa isa : cpu::all_isas)
    for (int threads : {1, 3})
      if (cpu::supported(isa))
        devices.push_back({cpu::name_of(isa), cpu_device({threads, cpu::name_of(isa), algorithms})});
  static const Device* const gpu = cuda::device_count() > 0 ? new Device(device_by_name("cuda")) : nullptr;
  if (gpu) devices.push_back({"cuda", *gpu});
  return devices;
}
#else
inline std::vector<TestDevice> test_devices(const std::string& = {}) {
#if defined(HALFTONE_TSAN)
  constexpr int count = 1;  // races are seen in any order, slowly
#else
  constexpr int count = 2;
#endif
  static auto& devices = *new std::vector<TestDevice>;
  for (int i = static_cast<int>(devices.size()); i < count; ++i)
    devices.push_back({"cuda", Device(cuda::make_backend(i % cuda::device_count()))});
  return devices;
}
#endif

/// What a device does with a node: each listed kernel, but where one does not take a storage, the launch that a plan
/// would get.
inline std::vector<std::pair<std::string, Launch>> launches_of(const Request& request) {
  std::vector<std::pair<std::string, Launch>> launches;
  for (const Kernel& kernel : request.device.backend().kernels().find(request.op)) {
    if (kernel.decline && !kernel.decline(request).empty()) continue;
    if (!kernel.takes(request)) {
      launches.emplace_back("chosen", choose_kernel(request).launch);
      break;
    }
    launches.emplace_back(kernel.name, kernel.make(request));
  }
  return launches;
}

/// Runs every listed kernel of the operation on every device: each must meet the bound, write nothing else, give the
/// same bits in place and with any thread count. At least one must not decline. Where results must be exact, only
/// direct algorithms take part.
inline void check_kernels(const KernelTest& test) {
  const auto storage = [&](std::size_t i) { return test.storages[std::min(i, test.storages.size() - 1)]; };
  std::vector<ValueSpec> in, out = test.outputs;
  for (std::size_t i = 0; i < test.shapes.size(); ++i) in.push_back({test.shapes[i], storage(i)});
  if (out.empty()) {
    out = test.op.infer(in);
    for (std::size_t i = 0; i < out.size(); ++i) out[i].storage = storage(in.size() + i);
  }
  std::vector<Doubles> values;
  for (std::size_t i = 0; i < in.size(); ++i)
    values.push_back(stored({test.values[i].begin(), test.values[i].end()}, in[i].storage));
  const auto expected = test.reference(values);
  int runs = 0;
  std::map<std::string, std::vector<std::vector<unsigned char>>> first_results;
  for (const auto& [device_name, device] : test_devices(test.bounds.empty() ? "direct" : "fastest"))
    for (const auto& [kernel, launch] : launches_of({test.op, in, out, device})) {
      const std::string name = fmt::format("{}/{} on {}", test.op.name(), kernel, device_name);
      std::string where = fmt::format("{}, {}", name, device.backend().description());
      for (const auto& spec : in) where += fmt::format(" {} {}", to_string(spec.shape), to_string(spec.storage));
      for (const auto& spec : out) where += fmt::format(" -> {} {}", to_string(spec.shape), to_string(spec.storage));
      SCOPED_TRACE(where);
      ++runs;
      const auto results = check_launch(test, device, launch, in, out, expected);
      const auto [first, is_first] = first_results.try_emplace(name, results);
      EXPECT_TRUE(is_first || first->second == results) << "the thread count matters";
      if (testing::Test::HasFailure()) return;
    }
  EXPECT_GT(runs, 0) << test.op.name() << ": no kernel takes this";
}

}  // namespace halftone::test

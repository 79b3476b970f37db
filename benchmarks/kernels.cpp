// Every kernel that the CPU's table lists for a set of typical nodes, in each storage, one JSON line a row:
// arithmetic as percent of the measured multiply-add peak, all else as percent of the measured speed of a copy (each
// input and output counted once). Padding counts as work. One thread (the default) is timed by the processor time it
// got, so that a busy machine disturbs little. with_infinity: times as long when the second operand is infinite. For
// convolutions and dense layers kernels are timed that would decline only because another is predicted to be faster;
// the last line says how often the fastest was chosen, and by how much a choice missed it.
// With --against only chosen kernels are timed, each in turn with the one chosen for that storage: "ratio" is the
// latter's time over its own.
//
//   kernels [--threads N] [--isa NAME] [--format NAME] [--only PART_OF_A_NAME] [--against FORMAT]
//   kernels --list: the convolutions, a line each
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "benchmarks/clock.hpp"
#include "halftone/halftone.hpp"
#include "kernels/cpu/isa.hpp"
#include "kernels/cpu/peak.hpp"

namespace {

using namespace halftone;

double now(int threads) { return seconds_by(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC); }

template <class F>
double seconds_once(int threads, F&& f) {
  const double start = now(threads);
  f();
  return now(threads) - start;
}

/// Seconds of the fastest of several calls.
template <class F>
double seconds(int threads, F&& f) {
  double best = 1e9, total = 0;
  for (int i = 0; i < 5 || (total < 0.15 && i < 2000); ++i) {
    const double taken = seconds_once(threads, f);
    best = std::min(best, taken);
    total += taken;
  }
  return best;
}

/// Times of two functions called in turn, each the fastest of 50 or more: the second's over the first's.
template <class F, class G>
double in_turn(int threads, F&& f, G&& g) {
  double first = 1e9, second = 1e9, total = 0;
  for (int i = 0; i < 50 || total < 1; ++i) {
    const double one = seconds_once(threads, f), other = seconds_once(threads, g);
    first = std::min(first, one), second = std::min(second, other), total += one + other;
  }
  return second / first;
}

/// Bytes read and written in a second by a copy of what no cache holds.
double copy_speed() {
  std::vector<std::byte> from(std::size_t{256} << 20, std::byte{1}), to(from.size());
  return 2 * static_cast<double>(from.size()) / seconds(1, [&] { std::memcpy(to.data(), from.data(), from.size()); });
}

/// A node to time; without operations it is bound by memory.
struct Case {
  std::string name;
  std::shared_ptr<const Op> op;
  std::vector<Shape> inputs;
  double operations = 0;
};

struct Layer {
  const char* name;
  Shape x, w;
  ConvAttributes conv = {1, 1};
};

const std::vector<Layer> layers = {
    {"28x28 1>6 5x5 (lenet)", {128, 28, 28, 1}, {6, 5, 5, 1}, {1, 2}},
    {"14x14 6>16 5x5 valid (lenet)", {128, 14, 14, 6}, {16, 5, 5, 6}, {1, 0}},
    {"28x28 1>8 5x5 valid (gupta)", {128, 28, 28, 1}, {8, 5, 5, 1}, {1, 0}},
    {"12x12 8>16 5x5 valid (gupta)", {128, 12, 12, 8}, {16, 5, 5, 8}, {1, 0}},
    {"32x32 3>64 3x3 (resnet)", {128, 32, 32, 3}, {64, 3, 3, 3}},
    {"32x32 16>16 3x3 (resnet)", {128, 32, 32, 16}, {16, 3, 3, 16}},
    {"16x16 32>32 3x3 (resnet)", {128, 16, 16, 32}, {32, 3, 3, 32}},
    {"8x8 64>64 3x3 (resnet)", {128, 8, 8, 64}, {64, 3, 3, 64}},
    {"32x32 64>64 3x3 (resnet)", {128, 32, 32, 64}, {64, 3, 3, 64}},
    {"16x16 128>128 3x3 (resnet)", {128, 16, 16, 128}, {128, 3, 3, 128}},
    {"8x8 256>256 3x3 (resnet)", {128, 8, 8, 256}, {256, 3, 3, 256}},
    {"4x4 512>512 3x3 (resnet)", {128, 4, 4, 512}, {512, 3, 3, 512}},
    {"31x31 24>24 3x3", {8, 31, 31, 24}, {24, 3, 3, 24}},
    {"15x15 64>256 3x3", {8, 15, 15, 64}, {256, 3, 3, 64}},
    {"7x7 256>256 3x3", {16, 7, 7, 256}, {256, 3, 3, 256}},
    {"3x3 256>256 3x3", {64, 3, 3, 256}, {256, 3, 3, 256}},
    {"12x12 6>6 3x3", {64, 12, 12, 6}, {6, 3, 3, 6}},
    {"32x32 8>12 3x3", {16, 32, 32, 8}, {12, 3, 3, 8}},
    {"2x2 64>64 3x3", {64, 2, 2, 64}, {64, 3, 3, 64}},
    {"1x1 128>128 3x3", {64, 1, 1, 128}, {128, 3, 3, 128}},
    {"32x32 64>128 3x3 /2 (resnet)", {128, 32, 32, 64}, {128, 3, 3, 64}, {2, 1}},
    {"32x32 64>128 1x1 /2 (resnet)", {128, 32, 32, 64}, {128, 1, 1, 64}, {2, 0}},
    {"14x14 256>1024 1x1", {4, 14, 14, 256}, {1024, 1, 1, 256}, {1, 0}},
};

void add_cases(const Layer& c, std::vector<Case>& cases) {
  Conv2d forward(c.conv);
  forward.epilogue = Relu{};
  const Shape y = forward.infer(std::vector<ValueSpec>{{c.x}, {c.w}})[0].shape;
  const double operations = 2.0 * static_cast<double>(y.elements()) * static_cast<double>(c.w.features());
  const Extent extent(static_cast<int>(c.x.h), static_cast<int>(c.x.w));
  cases.push_back({c.name, std::make_shared<Conv2d>(forward), {c.x, c.w, Shape::vector(c.w.n)}, operations});
  cases.push_back({c.name, std::make_shared<Conv2dDInput>(c.conv, extent), {y, c.w}, operations});
  cases.push_back({c.name, std::make_shared<Conv2dDWeight>(c.conv, c.w), {c.x, y}, operations});
}

void add_dense(std::int64_t n, std::int64_t features, std::int64_t units, std::vector<Case>& cases) {
  const std::string name = fmt::format("{} x {}>{}", n, features, units);
  const Shape x = Shape::matrix(n, features), w = Shape::matrix(units, features), y = Shape::matrix(n, units);
  const double operations = 2.0 * static_cast<double>(n * features * units);
  cases.push_back({name, std::make_shared<Dense>(), {x, w, Shape::vector(units)}, operations});
  cases.push_back({name, std::make_shared<DenseDInput>(x), {y, w}, operations});
  cases.push_back({name, std::make_shared<DenseDWeight>(), {x, y}, operations});
}

void add_memory_bound(const Shape& x, std::vector<Case>& cases) {
  const std::string name = to_string(x);
  const Shape c = Shape::vector(x.c), half{x.n, x.h / 2, x.w / 2, x.c};
  const PoolAttributes pool{2, 2, 0};
  BatchNorm norm(1e-5f, 0.1f);
  norm.epilogue = Relu{};
  Add add;
  add.epilogue = Relu{};
  cases.push_back({name, std::make_shared<Activate>(Relu{}), {x}});
  cases.push_back({name, std::make_shared<Activate>(Gelu{}), {x}});
  cases.push_back({name, std::make_shared<ActivationGradient>(Relu{}), {x, x}});
  cases.push_back({name, std::make_shared<Add>(add), {x, x}});
  cases.push_back({name, std::make_shared<BatchNorm>(norm), {x, c, c, c, c}});
  cases.push_back({name, std::make_shared<BatchNormGradient>(), {x, x, c, c, c}});
  cases.push_back({name, std::make_shared<MaxPool2d>(pool), {x}});
  cases.push_back({name, std::make_shared<MaxPool2dGradient>(pool), {half, x}});
  cases.push_back({name, std::make_shared<SumRows>(), {x}});
}

/// All tensors of one node in one storage, in memory of their own.
class TimedNode {
 public:
  TimedNode(const Case& c, const Storage& storage, const Device& device)
      : op_(*c.op), device_(device), state_(device, {{1, 1, 1, 512}, DType::u8}) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (const Shape& shape : c.inputs) inputs_.push_back({shape, storage});
    if (op_.name().starts_with("batch_norm"))
      for (std::size_t i = 3; i < inputs_.size(); ++i) inputs_[i].storage = DType::f32;  // statistics
    outputs_ = op_.infer(inputs_);
    for (ValueSpec& spec : outputs_)
      if (spec.role != Role::exact) spec.storage = storage;
    for (const ValueSpec& spec : inputs_) {
      std::vector<float> values(static_cast<std::size_t>(spec.shape.elements()));
      for (float& value : values) value = uniform(random);
      add(spec).write(values);
      in_.push_back({tensors_.back().view().data});
    }
    for (const ValueSpec& spec : outputs_) out_.push_back({add(spec).data});
  }

  double bytes() const {
    double total = 0;
    for (const auto* specs : {&inputs_, &outputs_})
      for (const ValueSpec& spec : *specs) total += static_cast<double>(spec.tensor().bytes());
    return total;
  }

  Request request() const { return {op_, inputs_, outputs_, device_}; }

  void fill(std::size_t input, float value) {
    const std::vector<float> values(static_cast<std::size_t>(inputs_[input].shape.elements()), value);
    tensors_[input].view().write(values);
  }

  /// Runs the launch, with a workspace of its own, at each call.
  auto runner(const Launch& launch) const {
    return [this, &launch, workspace = std::make_shared<Buffer>(device_, launch.workspace)] {
      launch.run({in_, out_, workspace->data(), static_cast<StepState*>(state_.view().data), nullptr});
    };
  }

 private:
  TensorView add(const ValueSpec& spec) {
    tensors_.emplace_back(device_, spec.tensor());
    return tensors_.back().view();
  }
  const Op& op_;
  Device device_;
  Tensor state_;
  std::vector<ValueSpec> inputs_, outputs_;
  std::vector<Tensor> tensors_;
  std::vector<Memory> in_, out_;
};

/// What is too slow to be worth timing.
bool is_reference(const Kernel& kernel) { return kernel.name == std::string("reference"); }

/// Its predicted share of the peak; 0 where nothing was predicted.
double predicted_share(const Kernel& kernel, const Request& request) {
  return kernel.predict ? kernel.predict(request) : 0;
}

/// Whether a kernel could do it, at whatever speed.
bool able(const Kernel& kernel, const Request& request) {
  return kernel.predict ? kernel.predict(request) > 0 : !kernel.decline || kernel.decline(request).empty();
}

/// How good the choices among kernels were.
struct Choices {
  int made = 0, fastest = 0;
  double worst = 1;  ///< time of a choice over that of the fastest

  void add(const std::vector<std::pair<std::string, double>>& times, const std::string& chosen) {
    if (times.size() < 2) return;
    double best = HUGE_VAL, of_chosen = HUGE_VAL;
    for (const auto& [name, time] : times) {
      best = std::min(best, time);
      if (chosen.ends_with("/" + name)) of_chosen = time;
    }
    ++made;
    fastest += of_chosen == best;
    worst = std::max(worst, of_chosen / best);
  }
};

}  // namespace

int main(int argc, char** argv) {
  int threads = 1;
  std::string isa = "auto", only, format, against;
  if (argc == 2 && argv[1] == std::string("--list")) {
    for (const Layer& layer : layers) fmt::print("{}\n", layer.name);
    return 0;
  }
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (option == "--threads" && std::atoi(value.c_str()) > 0) {
      threads = std::atoi(value.c_str());
    } else if (option == "--isa" && cpu::parse_isa(value)) {
      isa = value;
    } else if (option == "--only" && !value.empty()) {
      only = value;
    } else if (option == "--format" && parse_dtype(value)) {
      format = value;
    } else if (option == "--against" && parse_dtype(value)) {
      against = value;
    } else {
      fmt::print(stderr,
                 "kernels [--threads N] [--isa NAME] [--format NAME] [--only PART_OF_A_NAME] [--against FORMAT] | "
                 "--list\n");
      return 2;
    }
  }
  std::vector<Case> cases;
  for (const Layer& c : layers) add_cases(c, cases);
  add_dense(128, 400, 120, cases);
  add_dense(512, 512, 512, cases);
  add_memory_bound({64, 32, 32, 64}, cases);

  const Device device = cpu_device({.threads = threads, .isa = isa});
  const double peak = 1e-9 * cpu::multiply_add_peak(*cpu::parse_isa(isa), threads), copy = copy_speed() * 1e-9;
  fmt::print("{{\"device\": \"{}\", \"peak_gflops\": {:.1f}, \"copy_gbytes_per_second\": {:.1f}}}\n",
             device.backend().description(), peak, copy);
  const std::vector<Storage> storages = {DType::f32, DType::f16, DType::bf16, Storage::fixed(4, 12),
                                         Storage::fixed(4, 12, Rounding::stochastic)};
  Choices choices;
  for (const Storage& storage : storages)
    for (const Case& c : cases) {
      if ((c.op->name() + " " + c.name).find(only) == std::string::npos) continue;
      if (!format.empty() && to_string(storage) != format) continue;
      TimedNode node(c, storage, device);
      const Choice choice = choose_kernel(node.request());
      const std::string& chosen = choice.kernel;
      if (!against.empty()) {
        TimedNode other(c, *parse_dtype(against), device);
        const Launch others = choose_kernel(other.request()).launch;
        fmt::print(
            "{{\"kernel\": \"{}\", \"shape\": \"{}\", \"format\": \"{}\", \"against\": \"{}\", \"ratio\": {:.2f}}}\n",
            chosen, c.name, to_string(storage), against,
            in_turn(threads, node.runner(choice.launch), other.runner(others)));
        continue;
      }
      std::vector<std::pair<std::string, double>> times;
      for (const Kernel& kernel : device.backend().kernels().find(*c.op)) {
        if (is_reference(kernel) || !able(kernel, node.request())) continue;
        const Launch launch = kernel.make(node.request());
        const double time = seconds(threads, node.runner(launch));
        times.emplace_back(kernel.name, time);
        const double rate = (c.operations > 0 ? c.operations : node.bytes()) / time * 1e-9;
        fmt::print(
            "{{\"kernel\": \"{}/{}\", \"shape\": \"{}\", \"batch\": {}, \"format\": \"{}\", \"chosen\": {}, \"ms\": "
            "{:.3f}, \"{}\": "
            "{:.1f}, \"{}\": "
            "{:.0f}",
            c.op->name(), kernel.name, c.name, c.inputs[0].n, to_string(storage),
            chosen.ends_with(std::string("/") + kernel.name), time * 1e3,
            c.operations > 0 ? "gflops" : "gbytes_per_second", rate,
            c.operations > 0 ? "percent_of_peak" : "percent_of_copy", 100 * rate / (c.operations > 0 ? peak : copy));
        if (const double share = predicted_share(kernel, node.request()); share > 0)
          fmt::print(", \"predicted_gflops\": {:.1f}", share * peak);
        if (c.operations > 0 && storage.plain()) {
          node.fill(1, HUGE_VALF);
          fmt::print(", \"with_infinity\": {:.2f}", seconds(threads, node.runner(launch)) / time);
          node.fill(1, 0.5f);
        }
        fmt::print("}}\n");
      }
      choices.add(times, chosen);
    }
  if (against.empty())
    fmt::print("{{\"choices\": {}, \"fastest\": {}, \"worst_time_over_fastest\": {:.2f}}}\n", choices.made,
               choices.fastest, choices.worst);
}

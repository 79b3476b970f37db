// The convolution engine on one thread (or --threads N): GFLOP/s and percent of the measured multiply-add peak for
// typical shapes, directions and formats, one JSON line a row; then a LeNet-5 step. Padding is counted as work. One
// thread is timed by the processor time it got, so that a busy machine disturbs little.
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/convert.hpp"
#include "kernels/cpu/convolution.hpp"
#include "kernels/cpu/peak.hpp"

namespace {

using namespace halftone;
using namespace halftone::cpu;

double now(int threads) {
  timespec time;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// Seconds of the fastest of several calls.
template <class F>
double seconds(int threads, F&& f) {
  double best = 1e9, total = 0;
  for (int i = 0; i < 5 || (total < 0.15 && i < 2000); ++i) {
    const double start = now(threads);
    f();
    const double taken = now(threads) - start;
    best = std::min(best, taken);
    total += taken;
  }
  return best;
}

std::vector<std::byte> numbers(DType dtype, std::int64_t count) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& x : values) x = uniform(random);
  std::vector<std::byte> stored(values.size() * size_of(dtype));
  encoder(best_isa(), dtype)(values.data(), stored.data(), count);
  return stored;
}

struct Times {
  double forward, d_input, d_weight;
};

Times measure(const ConvProblem& c, DType dtype, Isa isa, int threads) {
  auto x = numbers(dtype, c.n * c.h * c.w * c.c), w = numbers(dtype, c.k * c.r * c.s * c.c),
       y = numbers(dtype, c.n * c.p * c.q * c.k);
  const auto bias = numbers(dtype, c.k);
  const ConvForward forward(c, {dtype, dtype, dtype, dtype}, Relu{}, true, isa, threads);
  const ConvDInput d_input(c, {dtype, dtype, dtype}, isa, threads);
  const ConvDWeight d_weight(c, {dtype, dtype, dtype}, isa, threads);
  std::vector<float> workspace(std::max({forward.workspace(), d_input.workspace(), d_weight.workspace()}) / 4 + 16);
  const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
  void* scratch = reinterpret_cast<void*>((address + 63) / 64 * 64);
  auto dx = x, dw = w, out = y;
  return {seconds(threads, [&] { forward.run(x.data(), w.data(), bias.data(), out.data(), scratch); }),
          seconds(threads, [&] { d_input.run(y.data(), w.data(), dx.data(), scratch); }),
          seconds(threads, [&] { d_weight.run(x.data(), y.data(), dw.data(), scratch); })};
}

double operations(const ConvProblem& c) { return 2.0 * static_cast<double>(c.n * c.p * c.q * c.k * c.r * c.s * c.c); }

struct Shape {
  std::string name;
  ConvProblem problem;
};

ConvProblem square(std::int64_t n, std::int64_t size, std::int64_t c, std::int64_t k, std::int64_t taps, int pad,
                   int stride = 1) {
  const std::int64_t out = (size + 2 * pad - taps) / stride + 1;
  return {.n = n,
          .h = size,
          .w = size,
          .c = c,
          .k = k,
          .r = taps,
          .s = taps,
          .p = out,
          .q = out,
          .stride_h = stride,
          .stride_w = stride,
          .pad_h = pad,
          .pad_w = pad};
}

std::vector<Shape> lenet() {
  return {{"lenet conv1", square(128, 28, 1, 6, 5, 2)},
          {"lenet conv2", square(128, 14, 6, 16, 5, 0)},
          {"lenet fc1", square(128, 1, 400, 120, 1, 0)},
          {"lenet fc2", square(128, 1, 120, 84, 1, 0)},
          {"lenet fc3", square(128, 1, 84, 10, 1, 0)}};
}

std::vector<Shape> networks() {
  return {{"32x32 3>64 3x3", square(16, 32, 3, 64, 3, 1)},
          {"32x32 16>16 3x3", square(32, 32, 16, 16, 3, 1)},
          {"16x16 32>32 3x3", square(32, 16, 32, 32, 3, 1)},
          {"32x32 64>64 3x3", square(8, 32, 64, 64, 3, 1)},
          {"8x8 64>64 3x3", square(64, 8, 64, 64, 3, 1)},
          {"16x16 128>128 3x3", square(8, 16, 128, 128, 3, 1)},
          {"8x8 256>256 3x3", square(16, 8, 256, 256, 3, 1)},
          {"4x4 512>512 3x3", square(32, 4, 512, 512, 3, 1)},
          {"32x32 64>128 3x3 /2", square(8, 32, 64, 128, 3, 1, 2)},
          {"32x32 64>128 1x1 /2", square(8, 32, 64, 128, 1, 0, 2)},
          {"14x14 256>1024 1x1", square(4, 14, 256, 1024, 1, 0)},
          {"dense 512>512", square(512, 1, 512, 512, 1, 0)}};
}

}  // namespace

int main(int argc, char** argv) {
  int threads = 1;
  Isa isa = best_isa();
  std::string only;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string(argv[i]) == "--threads") threads = std::atoi(argv[i + 1]);
    if (std::string(argv[i]) == "--isa") isa = parse_isa(argv[i + 1]).value_or(isa);
    if (std::string(argv[i]) == "--only") only = argv[i + 1];
  }
  const double peak = multiply_add_peak(isa);
  fmt::print("{{\"isa\": \"{}\", \"threads\": {}, \"peak_gflops\": {:.1f}}}\n", name_of(isa), threads, peak);
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    double step = 0;
    auto shapes = lenet();
    const std::size_t lenet_layers = shapes.size();
    for (const Shape& shape : networks()) shapes.push_back(shape);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      if (shapes[i].name.find(only) == std::string::npos) continue;
      const Times t = measure(shapes[i].problem, dtype, isa, threads);
      if (i < lenet_layers) step += t.forward + t.d_weight + (i == 0 ? 0 : t.d_input);
      for (auto [direction, time] :
           {std::pair{"forward", t.forward}, {"d_input", t.d_input}, {"d_weight", t.d_weight}}) {
        const double gflops = operations(shapes[i].problem) / time * 1e-9;
        fmt::print(
            "{{\"shape\": \"{}\", \"direction\": \"{}\", \"format\": \"{}\", \"ms\": {:.3f}, \"gflops\": {:.1f}, "
            "\"percent_of_peak\": {:.0f}}}\n",
            shapes[i].name, direction, name_of(dtype), time * 1e3, gflops, gflops / peak * 100 / threads);
      }
    }
    fmt::print("{{\"shape\": \"lenet step, batch 128\", \"format\": \"{}\", \"ms\": {:.3f}}}\n", name_of(dtype),
               step * 1e3);
  }
}

// Signs by XNOR and bit counts, on one thread, by the processor time it got; a JSON line a measurement:
// products of n x n matrices of signs against OpenBLAS's f32 product of the same size, where CMake found it, and images
// that a binary net 784-4096-4096-4096-10 classifies in a second against its f32 twin, through the same Predictor. Both
// sides take turns, the fastest of their runs counts, and signs are packed for the kernel in every run.
//
//   xnor [--isa NAME]        on AVX2 against AVX2: OPENBLAS_CORETYPE=Haswell xnor --isa avx2
#include "kernels/cpu/xnor.hpp"

#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "halftone/halftone.hpp"

#ifdef HALFTONE_HAS_OPENBLAS
#include <cblas.h>
#endif

namespace {

using namespace halftone;

double now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// Seconds of the fastest run of each, in turn.
template <class F, class G>
std::pair<double, double> fastest(int rounds, F&& f, G&& g) {
  double best[] = {1e9, 1e9};
  const auto timed = [](double& least, auto& run) {
    const double start = now();
    run();
    least = std::min(least, now() - start);
  };
  for (int i = 0; i < rounds; ++i) timed(best[0], f), timed(best[1], g);
  return {best[0], best[1]};
}

void products(std::int64_t n, const Device& device, int rounds) {
  const Dense dense;
  const ValueSpec signs{Shape::matrix(n, n), DType::sign}, sums{Shape::matrix(n, n)};
  const ValueSpec inputs[] = {signs, signs}, outputs[] = {sums};
  const Choice choice = choose_kernel({dense, inputs, outputs, device});
  std::mt19937 random(1);
  std::vector<float> numbers(static_cast<std::size_t>(n * n));
  Tensor operands[] = {Tensor(device, signs.tensor()), Tensor(device, signs.tensor())}, result(device, sums.tensor());
  for (Tensor& tensor : operands) {
    for (float& x : numbers) x = random() % 2 ? 1.0f : -1.0f;
    tensor.view().write(numbers);
  }
  const Buffer workspace(device, choice.launch.workspace);
  const Memory in[] = {{operands[0].view().data}, {operands[1].view().data}}, out[] = {{result.view().data}};
  StepState state;
  const auto of_signs = [&] { choice.launch.run({in, out, workspace.data(), &state}); };
  std::string peer = "none: CMake found no OpenBLAS";
  std::function<void()> of_numbers = [] {};
#ifdef HALFTONE_HAS_OPENBLAS
  const auto a = operands[0].view().read(), b = operands[1].view().read();
  std::vector<float> c(a.size());
  const int size = static_cast<int>(n);
  openblas_set_num_threads(1);
  peer = std::string("OpenBLAS, ") + openblas_get_corename();
  of_numbers = [&] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, size, size, size, 1, a.data(), size, b.data(), size, 0,
                c.data(), size);
  };
#endif
  const auto [mine, other] = fastest(rounds, of_signs, of_numbers);
  fmt::print("{{\"product\": {}, \"kernel\": \"{}\", \"ms\": {:.3f}, \"peer\": \"{}\"", n, choice.kernel, mine * 1e3,
             peer);
#ifdef HALFTONE_HAS_OPENBLAS
  fmt::print(", \"peer_ms\": {:.3f}, \"times_as_fast\": {:.2f}, \"equal\": {}", other * 1e3, other / mine,
             c == result.view().read());
#endif
  fmt::print("}}\n");
}

void net(const Device& device, int rounds) {
  constexpr std::int64_t batch = 128;
  const auto predictor = [&](const Precision& precision) {
    Graph graph;
    Value x = graph.input("images", {batch, 1, 1, 784});
    for (int i = 0; i < 3; ++i) x = relu(batch_norm(dense(x, 4096, {.bias = false})));
    return Predictor(dense(x, 10), {.device = device, .precision = precision});
  };
  Predictor binary = predictor(Precision::binary()), f32 = predictor(Precision::f32());
  std::vector<float> images(batch * 784);
  std::mt19937 random(1);
  for (float& x : images) x = static_cast<float>(random() % 256) / 255;
  const auto bytes = std::as_bytes(std::span(images));
  const auto [mine, other] = fastest(
      rounds, [&] { binary(bytes); }, [&] { f32(bytes); });
  fmt::print(
      "{{\"net\": \"784-4096-4096-4096-10\", \"batch\": {}, \"binary_ms\": {:.3f}, \"f32_ms\": {:.3f}, "
      "\"times_as_fast\": {:.2f}}}\n",
      batch, mine * 1e3, other * 1e3, other / mine);
}

}  // namespace

int main(int argc, char** argv) {
  const bool named = argc == 3 && argv[1] == std::string("--isa") && cpu::parse_isa(argv[2]);
  if (argc != 1 && !named) return fmt::print(stderr, "xnor [--isa NAME]\n"), 2;
  const Device device = cpu_device({.threads = 1, .isa = named ? argv[2] : "auto"});
  fmt::print("{{\"device\": \"{}\", \"vpopcntdq\": {}}}\n", device.backend().description(), cpu::counts_bits());
  products(1024, device, 20);
  products(2048, device, 10);
  net(device, 10);
}

// Signs by XNOR and bit counts, on one thread, by the processor time it got; a JSON line a measurement:
// products of n x n matrices of signs against OpenBLAS's f32 product of the same size, where CMake found it, and images
// that a binary net 784-4096-4096-4096-10 classifies in a second against its f32 twin, through the same Predictor, and
// against the four products alone by OpenBLAS. All sides take turns, the fastest of their runs counts, and signs are
// packed for the kernel in every run, weights too. `equal`: the numbers are those of f32 products of the same signs.
//
//   xnor [--isa NAME]
//
// OpenBLAS is started as a SkylakeX against AVX-512 and as a Haswell against AVX2, unless OPENBLAS_CORETYPE says
// otherwise; there is no ratio where its core is of another instruction set.
#include "kernels/cpu/xnor.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "benchmarks/clock.hpp"
#include "halftone/halftone.hpp"

#ifdef HALFTONE_HAS_OPENBLAS
#include <cblas.h>
#endif

namespace {

using namespace halftone;

double now() { return seconds_by(CLOCK_THREAD_CPUTIME_ID); }

/// Seconds of the fastest run of each, in turn.
template <class... Run>
std::array<double, sizeof...(Run)> fastest(int rounds, Run&&... runs) {
  std::array<double, sizeof...(Run)> best;
  best.fill(1e9);
  for (int i = 0; i < rounds; ++i) {
    auto least = best.begin();
    const auto timed = [&](auto& run) {
      const double start = now();
      run();
      *least = std::min(*least, now() - start), ++least;
    };
    (timed(runs), ...);
  }
  return best;
}

/// y [m, n] = x [m, k] times the transpose of w [n, k], by OpenBLAS; nothing without it.
void sgemm([[maybe_unused]] std::int64_t m, [[maybe_unused]] std::int64_t n, [[maybe_unused]] std::int64_t k,
           [[maybe_unused]] const float* x, [[maybe_unused]] const float* w, [[maybe_unused]] float* y) {
#ifdef HALFTONE_HAS_OPENBLAS
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), 1,
              x, static_cast<int>(k), w, static_cast<int>(k), 0, y, static_cast<int>(n));
#endif
}

/// The core that OpenBLAS takes this processor for; "none" without it.
std::string peer_core() {
#ifdef HALFTONE_HAS_OPENBLAS
  return openblas_get_corename();
#else
  return "none";
#endif
}

/// Whether that core's kernels use the instruction set, all of it.
bool is_peer(cpu::Isa isa) {
  const std::string core = peer_core();
  const auto among = [&](std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return core == name; });
  };
  if (isa >= cpu::Isa::avx512) return among({"SkylakeX", "Cooperlake", "SapphireRapids"});
  return isa == cpu::Isa::avx2 && among({"Haswell", "Zen"});
}

void products(std::int64_t n, const Device& device, cpu::Isa isa, int rounds) {
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
  const auto a = operands[0].view().read(), b = operands[1].view().read();
  std::vector<float> c(a.size());
  const auto [mine, other] = fastest(rounds, of_signs, [&] { sgemm(n, n, n, a.data(), b.data(), c.data()); });
  fmt::print("{{\"product\": {}, \"kernel\": \"{}\", \"ms\": {:.3f}", n, choice.kernel, mine * 1e3);
  if (is_peer(isa))
    fmt::print(", \"sgemm_ms\": {:.3f}, \"times_as_fast\": {:.2f}, \"equal\": {}", other * 1e3, other / mine,
               c == result.view().read());
  fmt::print("}}\n");
}

/// The net in f32; with `signs` between its layers as `binarize` puts them, but stored as f32.
Value mlp(std::int64_t batch, bool signs) {
  Graph graph;
  Value x = graph.input("images", {batch, 1, 1, 784});
  for (int i = 0; i < 3; ++i) {
    x = batch_norm(dense(x, 4096, {.bias = false}));
    x = signs && i < 2 ? cast(cast(hard_tanh(x), DType::sign), DType::f32) : relu(x);
  }
  return dense(x, 10);
}

Parameters parameters_of(const Value& output, std::int64_t batch, const Precision& precision, const Device& device) {
  const Graph net = for_evaluation(graph_of(output), output.id(), batch, precision, device);
  return Parameters(net, device, {.precision = precision, .gradients = false});
}

void net(std::int64_t batch, const Device& device, cpu::Isa isa, int rounds) {
  const Value logits = mlp(batch, false), logits_of_signs = mlp(batch, true);
  const Precision binary = Precision::binary(), f32 = Precision::f32();
  Parameters signs = parameters_of(logits, batch, binary, device), numbers = parameters_of(logits, batch, f32, device),
             signs_in_f32 = parameters_of(logits_of_signs, batch, f32, device);
  for (const ParameterSlot& slot : signs_in_f32.entries)
    signs_in_f32.assign(slot, signs.weight(signs.find(slot.name)).read());
  Predictor of_signs(logits, signs, binary), of_numbers(logits, numbers, f32);
  std::vector<float> images(static_cast<std::size_t>(batch * 784));
  std::mt19937 random(1);
  for (float& x : images) x = static_cast<float>(random() % 256) / 255;
  const auto bytes = std::as_bytes(std::span(images));
  const bool equal = of_signs(bytes) == Predictor(logits_of_signs, signs_in_f32, f32)(bytes);
  const std::vector<float> weights(4096 * 4096, 0.5f), x(static_cast<std::size_t>(batch * 4096), 0.5f);
  std::vector<float> y(x.size());
  const auto products_alone = [&] {
    for (const auto& [n, k] : {std::pair{4096, 784}, {4096, 4096}, {4096, 4096}, {10, 4096}})
      sgemm(batch, n, k, x.data(), weights.data(), y.data());
  };
  const auto [mine, twin, products] = fastest(
      rounds, [&] { of_signs(bytes); }, [&] { of_numbers(bytes); }, products_alone);
  fmt::print(
      "{{\"net\": \"784-4096-4096-4096-10\", \"batch\": {}, \"binary_ms\": {:.3f}, \"equal\": {}, \"f32_ms\": {:.3f}, "
      "\"times_as_fast_as_f32\": {:.2f}",
      batch, mine * 1e3, equal, twin * 1e3, twin / mine);
  if (is_peer(isa))
    fmt::print(", \"sgemm_ms\": {:.3f}, \"times_as_fast_as_sgemm\": {:.2f}", products * 1e3, products / mine);
  fmt::print("}}\n");
}

}  // namespace

int main(int argc, char** argv) {
  const auto isa = argc == 3 && argv[1] == std::string("--isa") ? cpu::parse_isa(argv[2]) : cpu::parse_isa("auto");
  if (!isa || (argc != 1 && argc != 3)) return fmt::print(stderr, "xnor [--isa NAME]\n"), 2;
#ifdef HALFTONE_HAS_OPENBLAS
  if (*isa != cpu::Isa::baseline && !std::getenv("OPENBLAS_CORETYPE")) {  // it is read before main
    setenv("OPENBLAS_CORETYPE", *isa >= cpu::Isa::avx512 ? "SkylakeX" : "Haswell", 1);
    execv("/proc/self/exe", argv);
  }
  openblas_set_num_threads(1);
#endif
  const Device device = cpu_device({.threads = 1, .isa = cpu::name_of(*isa)});
  fmt::print("{{\"device\": \"{}\", \"vpopcntdq\": {}, \"openblas\": \"{}\", \"same_instructions\": {}}}\n",
             device.backend().description(), cpu::counts_bits(), peer_core(), is_peer(*isa));
  products(1024, device, *isa, 20);
  products(2048, device, *isa, 10);
  net(128, device, *isa, 10);
  net(1, device, *isa, 10);
}

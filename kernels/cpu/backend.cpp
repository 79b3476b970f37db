#include "kernels/cpu/backend.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numeric>
#include <vector>

#include "halftone/tensor/text.hpp"
#include "kernels/cpu/float_mode.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/peak.hpp"

namespace halftone::cpu {
namespace {

constexpr std::size_t alignment = 64;

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "processor";
}

/// Those that this process may use.
int processors() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(const Machine& machine, bool direct_only) : machine(machine), direct_only(direct_only) {}

  std::string name() const override { return "cpu"; }
  std::string description() const override {
    return fmt::format("{}, {}, {} thread{}", processor_name(), name_of(machine.isa), machine.threads,
                       machine.threads == 1 ? "" : "s");
  }
  std::string algorithms() const override { return direct_only ? "direct" : "fastest"; }
  void* allocate(std::size_t bytes) override {
    const std::size_t padded = (bytes + alignment - 1) / alignment * alignment;
    void* memory = padded < bytes ? nullptr : std::aligned_alloc(alignment, padded);
    if (!memory) throw Failure(fmt::format("there is no memory for {} bytes", bytes));
    std::memset(memory, 0, padded);
    return memory;
  }
  void free(void* memory, std::size_t) noexcept override { std::free(memory); }
  void upload(void* device, const void* host, std::size_t bytes) override { copy(device, host, bytes); }
  void download(void* host, const void* device, std::size_t bytes) override { copy(host, device, bytes); }
  void synchronize() override {}
  std::function<void()> capture(std::function<void()> enqueue) override {
    return [enqueue = std::move(enqueue)] {
      const FloatMode mode;
      enqueue();
    };
  }
  void* stream() override { return nullptr; }
  const KernelTable& kernels() const override { return kernel_table(); }
  double multiply_add_peak() override { return cpu::multiply_add_peak(machine.isa, machine.threads); }

  const Machine machine;
  const bool direct_only;

 private:
  static void copy(void* to, const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
};

}  // namespace

std::shared_ptr<Backend> make_backend(const CpuOptions& options) {
  if (options.threads < 0 || options.threads > 1024)
    fail(fmt::format("threads {}: a count between 1 and 1024, or 0 for all", options.threads));
  const auto isa = parse_isa(options.isa);
  if (!isa) fail(fmt::format("isa {}: known instruction sets are auto, {}", options.isa, listed(isa_names(), " and ")));
  if (!supported(*isa))
    fail(
        fmt::format("isa {}: this processor has no such instructions, or the system does not grant them", options.isa));
  if (options.algorithms != "fastest" && options.algorithms != "direct")
    fail(fmt::format("algorithms {}: it is fastest or direct", options.algorithms));
  return std::make_shared<CpuBackend>(Machine{options.threads > 0 ? options.threads : processors(), *isa},
                                      options.algorithms == "direct");
}

Machine machine_of(const Request& request) { return static_cast<const CpuBackend&>(request.device.backend()).machine; }
bool direct_only(const Request& request) {
  return static_cast<const CpuBackend&>(request.device.backend()).direct_only;
}

}  // namespace halftone::cpu

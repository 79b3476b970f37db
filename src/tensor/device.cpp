#include "halftone/tensor/device.hpp"

#include <atomic>
#include <cmath>
#include <utility>

#include "halftone/tensor/error.hpp"
#include "halftone/tensor/text.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cuda/backend.hpp"

namespace halftone {

struct Device::State {
  std::shared_ptr<Backend> backend;
  std::atomic<std::size_t> allocated = 0, peak = 0;
};

Device::Device(std::shared_ptr<Backend> backend) : state_(std::make_shared<State>()) {
  state_->backend = std::move(backend);
}

Backend& Device::backend() const { return *state_->backend; }
std::size_t Device::allocated() const { return state_->allocated; }
std::size_t Device::peak() const { return state_->peak; }

std::vector<std::string_view> isa_names() {
  std::vector<std::string_view> names;
  for (const cpu::Isa isa : cpu::all_isas) names.push_back(cpu::name_of(isa));
  return names;
}

Device cpu_device(const CpuOptions& options) { return Device(cpu::make_backend(options)); }

Device cuda_device(int ordinal) {
  if (ordinal < 0) fail("device cuda:" + std::to_string(ordinal) + ": devices are counted from 0");
  return Device(cuda::make_backend(ordinal));
}

CudaStatus cuda_status() { return {cuda::built_for(), cuda::device_count(), cuda::why_no_device()}; }

Device best_device(const CpuOptions& options) { return cuda::device_count() > 0 ? cuda_device() : cpu_device(options); }

Device device_by_name(const std::string& name, const CpuOptions& options) {
  constexpr std::string_view cuda = "cuda:";
  if (name == "cpu") return cpu_device(options);
  if (name == "auto") return best_device(options);
  if (name == "cuda") return cuda_device();
  if (name.starts_with(cuda))
    if (const auto n = parse_number(name.substr(cuda.size())); n && *n >= 0 && *n < 1024 && *n == std::floor(*n))
      return cuda_device(static_cast<int>(*n));
  fail("device " + name + ": known devices are auto, cpu, cuda and cuda:N");
}

Buffer::Buffer(Device device, std::size_t bytes) : memory_(nullptr, Free{std::move(device), bytes}) {
  if (bytes == 0) return;
  memory_.reset(static_cast<std::byte*>(this->device().backend().allocate(bytes)));
  auto& state = *this->device().state_;
  const std::size_t allocated = state.allocated += bytes;
  for (std::size_t peak = state.peak; peak < allocated && !state.peak.compare_exchange_weak(peak, allocated);) {
  }
}

Buffer::Buffer(const Buffer& other) : Buffer() {
  if (!other.data()) return;
  *this = Buffer(other.device(), other.bytes());
  std::vector<std::byte> bytes(other.bytes());
  Backend& backend = device().backend();
  backend.download(bytes.data(), other.data(), bytes.size());
  backend.upload(data(), bytes.data(), bytes.size());
}

void Buffer::Free::operator()(std::byte* memory) const noexcept {
  device->state_->allocated -= bytes;
  device->backend().free(memory, bytes);
}

}  // namespace halftone

#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace halftone {

class KernelTable;

/// Rounded up to whole lines of 64 bytes, on which tensors begin.
constexpr std::size_t padded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

/// What a kind of machine must offer: memory, ordered work and a table of kernels. Implemented once per kind
/// (kernels/*). Work is done in the order in which it was enqueued, copies among it; the host may run ahead.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;         ///< "cpu", "cuda"
  virtual std::string description() const = 0;  ///< for people: processor, instruction set, threads
  /// Which algorithms may compute, in the words of `CpuOptions`; other numbers than from others come out.
  virtual std::string algorithms() const { return "direct"; }
  virtual void* allocate(std::size_t bytes) = 0;  ///< 64-byte aligned and zeroed; throws Failure where there is no room
  virtual void free(void* memory, std::size_t bytes) noexcept = 0;
  virtual void upload(void* device, const void* host, std::size_t bytes) = 0;    ///< `host` is free again on return
  virtual void download(void* host, const void* device, std::size_t bytes) = 0;  ///< waits for the numbers
  /// Enqueues a download and returns the function that waits for it; `host` must live until then.
  virtual std::function<void()> download_later(void* host, const void* device, std::size_t bytes) {
    download(host, device, bytes);
    return [] {};
  }
  /// Steps that may be under way while the host waits for the report of the oldest; 0 where work is done at once.
  virtual int steps_ahead() const { return 0; }
  virtual void synchronize() = 0;
  /// Returns a function that enqueues again what `enqueue` enqueues; a CUDA backend captures it into one graph launch.
  virtual std::function<void()> capture(std::function<void()> enqueue) = 0;
  virtual void* stream() = 0;  ///< what `Arguments::stream` carries; null on a CPU
  virtual const KernelTable& kernels() const = 0;
  /// Multiplications and additions a second that f32 multiply-adds in registers reach on all threads, measured by the
  /// call; 0 where nobody measures it.
  virtual double multiply_add_peak() { return 0; }
};

struct CpuOptions {
  int threads = 0;                     ///< 0: all that the machine has
  std::string isa = "auto";            ///< auto or one of isa_names()
  std::string algorithms = "fastest";  ///< or direct: each result is the plain sum of its products
};

/// The instruction sets that CPU kernels are compiled for, the narrowest first.
std::vector<std::string_view> isa_names();

/// A handle to a backend; copies name the same device. It counts what is allocated through it.
class Device {
 public:
  explicit Device(std::shared_ptr<Backend> backend);
  Backend& backend() const;
  std::size_t allocated() const;  ///< bytes now
  std::size_t peak() const;       ///< most bytes at any time
  bool operator==(const Device&) const = default;

 private:
  friend class Buffer;
  struct State;
  std::shared_ptr<State> state_;
};

/// The processor. Throws Error for an unknown or absent instruction set and for a negative thread count.
Device cpu_device(const CpuOptions& options = {});

/// CUDA device `ordinal`. Throws Error where this build or this machine has none, saying why.
Device cuda_device(int ordinal = 0);

/// What a build and a machine have of CUDA.
struct CudaStatus {
  std::string built_for;  ///< "built with CUDA 13.0 for ..."; empty where the build has no device code
  int devices;
  std::string why_none;
};
CudaStatus cuda_status();

/// The best device this build and this machine offer.
Device best_device(const CpuOptions& options = {});

/// "auto", "cpu", "cuda" or "cuda:1"; throws Error where the machine or the build has no such device.
Device device_by_name(const std::string& name, const CpuOptions& options = {});

/// Memory on a device, freed with the object; zeroed at birth. A copy has the same bytes.
class Buffer {
 public:
  Buffer() : memory_(nullptr, Free{}) {}
  Buffer(Device device, std::size_t bytes);
  Buffer(const Buffer& other);
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer other) noexcept {
    memory_.swap(other.memory_);
    return *this;
  }
  std::byte* data() const { return memory_.get(); }
  std::size_t bytes() const { return memory_.get_deleter().bytes; }
  const Device& device() const { return *memory_.get_deleter().device; }

 private:
  struct Free {
    std::optional<Device> device;
    std::size_t bytes = 0;
    void operator()(std::byte* memory) const noexcept;
  };
  std::unique_ptr<std::byte, Free> memory_;
};

}  // namespace halftone

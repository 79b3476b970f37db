#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace halftone::cuda {

/// Bytes of shared memory that a block has without asking for more.
inline constexpr std::size_t most_static_shared = 48 << 10;

/// A kernel's code: what a launch needs besides the kernel's own bytes.
struct KernelCode {
  const char* name;   ///< mangled
  const void* entry;  ///< for the driver that comes with this code
  unsigned threads;   ///< a block
  std::size_t shared, bytes;
};

struct DeviceFacts {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  std::size_t memory = 0;    ///< bytes
};

/// All that the backend asks of CUDA: memory, one stream, events, capture, launches. Whatever is enqueued runs in
/// order. Failures are a `Failure` whose message says what was asked and what CUDA answered.
class Driver {
 public:
  virtual ~Driver() = default;
  virtual const DeviceFacts& facts() const = 0;

  virtual void* allocate(std::size_t bytes) = 0;  ///< throws Failure with the bytes that are free
  virtual void free(void* device) noexcept = 0;
  virtual void* allocate_pinned(std::size_t bytes) = 0;
  virtual void free_pinned(void* host) noexcept = 0;

  virtual void clear(void* device, std::size_t bytes) = 0;
  virtual void copy_in(void* device, const void* pinned, std::size_t bytes) = 0;
  virtual void copy_out(void* pinned, const void* device, std::size_t bytes) = 0;
  virtual void launch(const KernelCode& code, unsigned blocks, const void* kernel) = 0;

  using Event = void*;
  virtual Event make_event() = 0;
  virtual void free_event(Event event) noexcept = 0;
  virtual void record(Event event) = 0;
  virtual void wait(Event event) = 0;  ///< until what was enqueued before the last `record` is done
  virtual void synchronize() = 0;

  /// Between these two, work is recorded instead of done; the result can be enqueued again and again.
  virtual void begin_capture() = 0;
  virtual std::shared_ptr<void> end_capture() = 0;
  virtual void replay(void* captured) = 0;

  virtual void* native_stream() = 0;  ///< for other libraries; null where there is no GPU

  /// What a steady step must not need, counted.
  struct Counts {
    std::int64_t allocations = 0, launches = 0;
    std::int64_t waits = 0;             ///< for an event
    std::int64_t synchronizations = 0;  ///< for all that was enqueued
  };
  Counts counts;

  std::shared_ptr<void> cudnn, cublas;  ///< what cudnn.cpp and cublas.cpp keep for this device; freed before the stream
};

/// The driver of CUDA device `ordinal`. Throws Error where there is none, saying what is missing.
std::unique_ptr<Driver> make_driver(int ordinal);

}  // namespace halftone::cuda

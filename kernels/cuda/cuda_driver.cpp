#include <cuda_runtime.h>
#include <fmt/format.h>

#include <set>

#include "halftone/tensor/error.hpp"
#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/driver.hpp"

// The driver of a real GPU, on CUDA's runtime.
namespace halftone::cuda {
namespace {

void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // so that the next call does not report it again
  throw Failure(fmt::format("cuda: {}: {}", what, cudaGetErrorString(status)));
}

std::string version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

class CudaDriver final : public Driver {
 public:
  explicit CudaDriver(int ordinal) : ordinal_(ordinal) {
    use();
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, ordinal), fmt::format("asking device {} what it is", ordinal));
    facts_ = {properties.name, properties.major, properties.minor, properties.totalGlobalMem};
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
    cudaMemPool_t pool;
    check(cudaDeviceGetDefaultMemPool(&pool, ordinal), "asking for the memory pool");
    std::uint64_t keep = ~std::uint64_t{0};
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "setting up the memory pool");
  }
  ~CudaDriver() override {
    cudnn.reset();
    static_cast<void>(cudaSetDevice(ordinal_));
    static_cast<void>(cudaStreamDestroy(stream_));
  }

  const DeviceFacts& facts() const override { return facts_; }

  void* allocate(std::size_t bytes) override {
    use();
    ++counts.allocations;
    void* memory = nullptr;
    const cudaError_t status = cudaMallocAsync(&memory, bytes, stream_);
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      std::size_t free = 0, total = 0;
      static_cast<void>(cudaMemGetInfo(&free, &total));
      throw Failure(fmt::format("cuda: there is no memory for {} bytes on {}: {} of {} are free", bytes, facts_.name,
                                free, total));
    }
    check(status, fmt::format("allocating {} bytes", bytes));
    return memory;
  }
  void free(void* device) noexcept override {
    static_cast<void>(cudaSetDevice(ordinal_));
    static_cast<void>(cudaFreeAsync(device, stream_));
  }
  void* allocate_pinned(std::size_t bytes) override {
    use();
    ++counts.allocations;
    void* memory = nullptr;
    check(cudaMallocHost(&memory, bytes), fmt::format("allocating {} pinned bytes", bytes));
    return memory;
  }
  void free_pinned(void* host) noexcept override { static_cast<void>(cudaFreeHost(host)); }

  void clear(void* device, std::size_t bytes) override {
    use();
    check(cudaMemsetAsync(device, 0, bytes, stream_), "clearing memory");
  }
  void copy_in(void* device, const void* pinned, std::size_t bytes) override {
    use();
    check(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream_), "copying to the device");
  }
  void copy_out(void* pinned, const void* device, std::size_t bytes) override {
    use();
    check(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, stream_), "copying from the device");
  }
  void launch(const KernelCode& code, unsigned blocks, const void* kernel) override {
    use();
    ++counts.launches;
    if (known_.insert(code.entry).second) get_ready(code);
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(code.threads);
    config.dynamicSmemBytes = code.shared > most_static_shared ? code.shared : 0;
    config.stream = stream_;
    void* arguments[] = {const_cast<void*>(kernel)};
    check(cudaLaunchKernelExC(&config, code.entry, arguments), fmt::format("launching {}", code.name));
  }

  Event make_event() override {
    use();
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
    return event;
  }
  void free_event(Event event) noexcept override {
    static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
  }
  void record(Event event) override {
    use();
    check(cudaEventRecord(static_cast<cudaEvent_t>(event), stream_), "recording an event");
  }
  void wait(Event event) override {
    ++counts.waits;
    check(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "waiting for the device");
  }
  void synchronize() override {
    ++counts.synchronizations;
    use();
    check(cudaStreamSynchronize(stream_), "waiting for the device");
  }

  /// Relaxed, since code is loaded when it is first asked for, which may be now.
  void begin_capture() override {
    use();
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "beginning to capture");
  }
  std::shared_ptr<void> end_capture() override {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_, &graph), "capturing");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    check(status, "making a captured graph ready");
    return {executable, [](void* e) { static_cast<void>(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(e))); }};
  }
  void replay(void* captured) override {
    use();
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(captured), stream_), "launching a captured graph");
  }
  void* native_stream() override {
    use();  // what works on it works on the current device
    return stream_;
  }

 private:
  void use() const { check(cudaSetDevice(ordinal_), fmt::format("using device {}", ordinal_)); }

  /// Loads a kernel's code.
  void get_ready(const KernelCode& code) {
    cudaFuncAttributes attributes;
    const cudaError_t status = cudaFuncGetAttributes(&attributes, code.entry);
    if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorUnsupportedPtxVersion)
      throw Failure(fmt::format("cuda: this build ({}) has no code for {}, compute capability {}.{}", built_for(),
                                facts_.name, facts_.major, facts_.minor));
    check(status, fmt::format("loading {}", code.name));
    if (code.shared > most_static_shared)
      check(
          cudaFuncSetAttribute(code.entry, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(code.shared)),
          fmt::format("{} bytes of shared memory for {}", code.shared, code.name));
  }

  int ordinal_;
  DeviceFacts facts_;
  cudaStream_t stream_ = nullptr;
  std::set<const void*> known_;
};

cudaError_t count_devices(int& count) {
  count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) count = 0, static_cast<void>(cudaGetLastError());
  return status;
}

}  // namespace

int device_count() {
  int count;
  count_devices(count);
  return count;
}

std::string why_no_device() {
  int count, driver = 0;
  const cudaError_t status = count_devices(count);
  if (count > 0) return {};
  static_cast<void>(cudaDriverGetVersion(&driver));
  const std::string needed = version(CUDART_VERSION / 1000 * 1000);
  if (status == cudaErrorInsufficientDriver && driver > 0)
    return fmt::format("the NVIDIA driver knows CUDA {} at most, this build needs {} or later", version(driver),
                       needed);
  if (status == cudaErrorInsufficientDriver || status == cudaErrorStubLibrary)
    return fmt::format("no NVIDIA driver was found; this build needs one for CUDA {} or later", needed);
  if (status == cudaSuccess || status == cudaErrorNoDevice) return "the NVIDIA driver sees no GPU";
  return cudaGetErrorString(status);
}

std::string built_for() {
  return fmt::format("built with CUDA {} for {}", version(CUDART_VERSION), HALFTONE_CUDA_ARCHITECTURES);
}

std::unique_ptr<Driver> make_driver(int ordinal) {
  const int count = device_count();
  if (count == 0) throw Failure("device cuda: " + why_no_device());
  if (ordinal >= count)
    fail(fmt::format("device cuda:{}: there {} {} CUDA device{}", ordinal, count == 1 ? "is" : "are", count,
                     count == 1 ? "" : "s"));
  return std::make_unique<CudaDriver>(ordinal);
}

}  // namespace halftone::cuda

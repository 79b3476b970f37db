#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kernels/common/convolution.hpp"
#include "kernels/cuda/plan_cache.hpp"

// Convolutions by cuDNN 9, a library that is opened when it is first asked for. Which plans it has for a GPU can be
// asked on any machine; only running them takes the GPU.
namespace halftone::cuda {

class Descriptor;
class Driver;

/// Why this machine has no cuDNN to use; empty where it has.
std::string why_no_cudnn();

/// "9.19.0"; throws Failure where there is none.
std::string cudnn_version();

/// The properties of CUDA device `ordinal` as cuDNN writes them, a JSON text.
std::string cudnn_device_text(int ordinal);

struct CudnnOptions {
  std::size_t workspace = std::size_t{256} << 20;  ///< plans that want more bytes are left out
  bool tf32 = false;                 ///< f32 may be multiplied on tensor cores, which read 10 of its 23 fraction bits
  bool tune = false;                 ///< time the first plans instead of taking the first
  std::filesystem::path cache = {};  ///< the file that keeps what was fastest; empty: none

  /// By default, with `tune` where HALFTONE_CUDNN_TUNE is 1; the cache lies in the user's cache folder.
  static CudnnOptions from_environment();
};

/// The plans that cuDNN has for one kind of GPU, which need not be there. Calls from several threads wait for each
/// other.
class ConvolutionPlans {
 public:
  /// For the device that such a text describes. Throws Failure where cuDNN cannot be used or does not accept the text.
  explicit ConvolutionPlans(const std::string& device_text, CudnnOptions options = {});
  /// For the device of a cudnnHandle_t.
  static ConvolutionPlans of_handle(void* handle, CudnnOptions options = {});
  ConvolutionPlans(ConvolutionPlans&&) noexcept;
  ~ConvolutionPlans();

  const std::string& device_text() const;
  const CudnnOptions& options() const;
  /// "cuDNN 9.19.0, NVIDIA H100 80GB HBM3"
  std::string name() const;

  /// Best first by cuDNN's judgement, those that by its notes keep numbers in f32 between reading and storing, give
  /// the same bits in each run and need no compiler; in f32 none on tensor cores without `tf32`. Empty where there is
  /// none. Asked once for each description.
  std::vector<ConvolutionPlan> allowed(const Convolution& convolution) const;

  /// A plan built anew from its engine and knobs. Throws Failure where cuDNN cannot.
  ConvolutionPlan rebuilt(const Convolution& convolution, const ConvolutionPlan& plan) const;

 private:
  friend Descriptor execution_plan(const ConvolutionPlans& plans, const Convolution& convolution,
                                   const ConvolutionPlan& plan);
  struct Impl;
  explicit ConvolutionPlans(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Why cuDNN does not do a convolution on a driver's stream, by plans on tensor cores or by others as is asked; empty
/// where it does. When it is first asked, plans run until one agrees with the library's own kernels (`Agreement`).
std::string decline_cudnn(const Convolution& convolution, Driver& driver, bool on_tensor_cores);

/// y = activation(x * weight + bias) or a gradient of x * weight, rounded once. The driver's device must be the current
/// one, here and when the launch runs.
Launch make_cudnn(const Convolution& convolution, Driver& driver, bool on_tensor_cores);

}  // namespace halftone::cuda

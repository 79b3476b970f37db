#pragma once
#include <cudnn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/cudnn.hpp"
#include "kernels/cuda/library.hpp"

static_assert(CUDNN_VERSION >= 90800, "Halftone needs the headers of cuDNN 9.8 or newer");

// cuDNN's own functions and descriptors, for the sources that use them.
namespace halftone::cuda {

/// What is used of libcudnn.so.9.
struct Library {
  decltype(&::cudnnGetVersion) version = nullptr;
  decltype(&::cudnnGetErrorString) error = nullptr;
  decltype(&::cudnnGetLastErrorString) last_error = nullptr;
  decltype(&::cudnnCreate) create_handle = nullptr;
  decltype(&::cudnnDestroy) destroy_handle = nullptr;
  decltype(&::cudnnSetStream) set_stream = nullptr;
  decltype(&::cudnnBackendCreateDescriptor) create = nullptr;
  decltype(&::cudnnBackendDestroyDescriptor) destroy = nullptr;
  decltype(&::cudnnBackendFinalize) finalize = nullptr;
  decltype(&::cudnnBackendSetAttribute) set = nullptr;
  decltype(&::cudnnBackendGetAttribute) get = nullptr;
  decltype(&::cudnnBackendExecute) execute = nullptr;
  std::string why_not = {};  ///< empty where it can be used
};

/// The library, opened. Throws Failure where it cannot be used.
const Library& cudnn();

/// Throws Failure for everything but success, with what cuDNN says.
void check(cudnnStatus_t status, const std::string& doing);

using Ints = std::vector<std::int64_t>;

/// A descriptor of cuDNN's, which ends with it. `name` is for messages and is not copied.
class Descriptor {
 public:
  Descriptor(cudnnBackendDescriptorType_t type, const char* name) : name_(name) {
    checked(cudnn().create(type, &raw_), "making");
  }
  Descriptor(Descriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)), name_(other.name_) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (raw_) cudnn().destroy(raw_);
  }
  cudnnBackendDescriptor_t raw() const { return raw_; }

  Descriptor& set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, std::size_t count,
                  const void* values) {
    checked(cudnn().set(raw_, attribute, type, static_cast<std::int64_t>(count), values), "setting", attribute);
    return *this;
  }
  Descriptor& set(cudnnBackendAttributeName_t a, std::int64_t x) { return set(a, CUDNN_TYPE_INT64, 1, &x); }
  Descriptor& set(cudnnBackendAttributeName_t a, std::int32_t x) { return set(a, CUDNN_TYPE_INT32, 1, &x); }
  Descriptor& set(cudnnBackendAttributeName_t a, bool x) { return set(a, CUDNN_TYPE_BOOLEAN, 1, &x); }
  Descriptor& set(cudnnBackendAttributeName_t a, float x) { return set(a, CUDNN_TYPE_FLOAT, 1, &x); }
  Descriptor& set(cudnnBackendAttributeName_t a, cudnnDataType_t x) { return set(a, CUDNN_TYPE_DATA_TYPE, 1, &x); }
  Descriptor& set(cudnnBackendAttributeName_t a, cudnnConvolutionMode_t x) {
    return set(a, CUDNN_TYPE_CONVOLUTION_MODE, 1, &x);
  }
  Descriptor& set(cudnnBackendAttributeName_t a, cudnnBackendHeurMode_t x) {
    return set(a, CUDNN_TYPE_HEUR_MODE, 1, &x);
  }
  Descriptor& set(cudnnBackendAttributeName_t a, cudnnBackendKnobType_t x) {
    return set(a, CUDNN_TYPE_KNOB_TYPE, 1, &x);
  }
  Descriptor& set(cudnnBackendAttributeName_t a, cudnnPointwiseMode_t x) {
    return set(a, CUDNN_TYPE_POINTWISE_MODE, 1, &x);
  }
  Descriptor& set(cudnnBackendAttributeName_t a, cudnnNanPropagation_t x) {
    return set(a, CUDNN_TYPE_NAN_PROPOGATION, 1, &x);
  }
  Descriptor& set(cudnnBackendAttributeName_t a, cudnnHandle_t x) { return set(a, CUDNN_TYPE_HANDLE, 1, &x); }
  Descriptor& set(cudnnBackendAttributeName_t a, void* x) { return set(a, CUDNN_TYPE_VOID_PTR, 1, &x); }
  Descriptor& set(cudnnBackendAttributeName_t a, const Ints& x) { return set(a, CUDNN_TYPE_INT64, x.size(), x.data()); }
  Descriptor& set(cudnnBackendAttributeName_t a, const std::string& x) {
    return set(a, CUDNN_TYPE_CHAR, x.size(), x.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t a, const Descriptor& x) {
    return set(a, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x.raw_);
  }
  Descriptor& finalize() {
    checked(cudnn().finalize(raw_), "finishing");
    return *this;
  }

  /// Fills up to `most` values and returns how many there are.
  std::size_t get(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, std::size_t most,
                  void* values) const {
    std::int64_t count = 0;
    checked(cudnn().get(raw_, attribute, type, static_cast<std::int64_t>(most), &count, values), "reading", attribute);
    return static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
  }
  std::int64_t number(cudnnBackendAttributeName_t attribute) const {
    std::int64_t x = 0;
    get(attribute, CUDNN_TYPE_INT64, 1, &x);
    return x;
  }
  std::string text(cudnnBackendAttributeName_t attribute) const {
    std::string x(get(attribute, CUDNN_TYPE_CHAR, 0, nullptr), '\0');
    get(attribute, CUDNN_TYPE_CHAR, x.size(), x.data());
    return x.substr(0, x.find('\0'));
  }
  /// Whether a list of at most `most` notes has one of these.
  template <class Note, std::size_t most>
  bool has(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type,
           std::initializer_list<Note> notes) const {
    std::array<Note, most> all;
    const auto end = all.begin() + std::min(most, get(attribute, type, most, all.data()));
    return std::find_first_of(all.begin(), end, notes.begin(), notes.end()) != end;
  }
  /// cuDNN fills descriptors that the caller makes, `most` of them.
  std::vector<Descriptor> list(cudnnBackendAttributeName_t attribute, cudnnBackendDescriptorType_t type,
                               const char* name, std::size_t most) const {
    std::vector<Descriptor> made;
    std::vector<cudnnBackendDescriptor_t> raw;
    for (std::size_t i = 0; i < most; ++i) raw.push_back(made.emplace_back(type, name).raw());
    const std::size_t count = most ? get(attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, raw.data()) : 0;
    while (made.size() > count) made.pop_back();
    return made;
  }

 private:
  void checked(cudnnStatus_t status, const char* doing, int attribute = -1) const;

  cudnnBackendDescriptor_t raw_ = nullptr;
  const char* name_;
};

/// A tensor's number in a graph.
enum TensorId : std::int64_t { tensor_x = 1, tensor_weight, tensor_y, tensor_bias, tensor_products, tensor_sums };

inline constexpr std::int64_t tensor_alignment = 16;  // bytes

/// A plan that can be run on the device that `plans` are for.
Descriptor execution_plan(const ConvolutionPlans& plans, const Convolution& convolution, const ConvolutionPlan& plan);

}  // namespace halftone::cuda

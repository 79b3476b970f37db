#include "kernels/cuda/cublas.hpp"

#include <cublasLt.h>
#include <fmt/format.h>

#include <array>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>

#include "kernels/cuda/agreement.hpp"
#include "kernels/cuda/library.hpp"

namespace halftone::cuda {
namespace {

/// What is used of libcublasLt.so.
struct Library {
  decltype(&::cublasLtGetVersion) version = nullptr;
  decltype(&::cublasLtGetStatusString) error = nullptr;
  decltype(&::cublasLtCreate) create_handle = nullptr;
  decltype(&::cublasLtDestroy) destroy_handle = nullptr;
  decltype(&::cublasLtMatmulDescCreate) create_operation = nullptr;
  decltype(&::cublasLtMatmulDescDestroy) destroy_operation = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) set_operation = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&::cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) algorithms = nullptr;
  decltype(&::cublasLtMatmul) multiply = nullptr;
  std::string why_not = {};  ///< empty where it can be used
};

Library open_cublas() {
  Library library;
  LibraryFile file(fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR), fmt::format("cuBLAS {}", CUBLAS_VER_MAJOR));
  file.find(library.version, "cublasLtGetVersion");
  file.find(library.error, "cublasLtGetStatusString");
  file.find(library.create_handle, "cublasLtCreate");
  file.find(library.destroy_handle, "cublasLtDestroy");
  file.find(library.create_operation, "cublasLtMatmulDescCreate");
  file.find(library.destroy_operation, "cublasLtMatmulDescDestroy");
  file.find(library.set_operation, "cublasLtMatmulDescSetAttribute");
  file.find(library.create_layout, "cublasLtMatrixLayoutCreate");
  file.find(library.destroy_layout, "cublasLtMatrixLayoutDestroy");
  file.find(library.create_preference, "cublasLtMatmulPreferenceCreate");
  file.find(library.destroy_preference, "cublasLtMatmulPreferenceDestroy");
  file.find(library.set_preference, "cublasLtMatmulPreferenceSetAttribute");
  file.find(library.algorithms, "cublasLtMatmulAlgoGetHeuristic");
  file.find(library.multiply, "cublasLtMatmul");
  library.why_not = file.why_not();
  return library;
}

const Library& opened() {
  static const Library library = open_cublas();  // for good: its threads and kernels outlive every handle
  return library;
}

const Library& cublas() {
  if (!opened().why_not.empty()) throw Failure(opened().why_not);
  return opened();
}

void check(cublasStatus_t status, const std::string& doing) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Failure(fmt::format("cuBLAS: {}: {}", doing, cublas().error(status)));
}

/// An object of cuBLASLt's, which ends with it.
template <class Raw>
class Owned {
 public:
  template <class Create, class Destroy, class... Arguments>
  Owned(Create create, Destroy destroy, const Arguments&... arguments) : destroy_(destroy) {
    check(create(&raw_, arguments...), "making an object");
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { destroy_(raw_); }
  Raw raw() const { return raw_; }

 private:
  Raw raw_ = {};
  cublasStatus_t (*destroy_)(Raw);
};

using Handle = Owned<cublasLtHandle_t>;
using Operation = Owned<cublasLtMatmulDesc_t>;
using Layout = Owned<cublasLtMatrixLayout_t>;
using Preference = Owned<cublasLtMatmulPreference_t>;

cudaDataType_t data_type(DType code) {
  return code == DType::f32 ? CUDA_R_32F : code == DType::f16 ? CUDA_R_16F : CUDA_R_16BF;
}

/// How a direction is d = op(a) op(b) for a library whose columns follow each other in memory, as our rows do: its
/// matrices are ours, transposed. Extents are rows (of channels or filters, which lie innermost) x columns.
struct Product {
  struct Matrix {
    std::size_t operand;
    std::int64_t rows, columns;
    cublasOperation_t as = CUBLAS_OP_N;
  };
  Matrix a, b;
  std::int64_t rows, columns;

  static Product of(const Convolution& convolution) {
    const ConvProblem& p = convolution.problem;
    const std::int64_t pixels = p.n * p.h * p.w;
    switch (convolution.direction) {
      case Direction::forward:
        return {{1, p.c, p.k, CUBLAS_OP_T}, {0, p.c, pixels}, p.k, pixels};
      case Direction::d_input:
        return {{1, p.c, p.k}, {0, p.k, pixels}, p.c, pixels};
      case Direction::d_weight:
        break;
    }
    return {{0, p.c, pixels}, {1, p.k, pixels, CUBLAS_OP_T}, p.c, p.k};
  }
};

/// A product as cuBLASLt has it, for one thread.
class Problem {
 public:
  explicit Problem(const Convolution& convolution)
      : product_(Product::of(convolution)),
        has_bias_(convolution.operands.inputs.size() > 2),
        type_(data_type(convolution.operands.output.storage.code)),
        operation_(cublas().create_operation, cublas().destroy_operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        a_(layout(product_.a.rows, product_.a.columns)),
        b_(layout(product_.b.rows, product_.b.columns)),
        d_(layout(product_.rows, product_.columns)) {
    set(CUBLASLT_MATMUL_DESC_TRANSA, product_.a.as);
    set(CUBLASLT_MATMUL_DESC_TRANSB, product_.b.as);
    const bool has_activation = convolution.activation.has_value();
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, has_bias_ && has_activation ? CUBLASLT_EPILOGUE_RELU_BIAS
                                       : has_bias_                 ? CUBLASLT_EPILOGUE_BIAS
                                       : has_activation            ? CUBLASLT_EPILOGUE_RELU
                                                                   : CUBLASLT_EPILOGUE_DEFAULT);
    if (has_bias_) set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_);
  }

  /// Best first by cuBLASLt's judgement, those whose sums stay in f32 until they are stored.
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms(cublasLtHandle_t handle) const {
    const Preference preference(cublas().create_preference, cublas().destroy_preference);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check(cublas().set_preference(preference.raw(), attribute, &value, sizeof value), "setting a preference");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_workspace);
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    for (const auto alignment :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(alignment, std::uint32_t{16});
    std::vector<cublasLtMatmulHeuristicResult_t> results(8);
    int count = 0;
    check(cublas().algorithms(handle, operation_.raw(), a_.raw(), b_.raw(), d_.raw(), d_.raw(), preference.raw(),
                              static_cast<int>(results.size()), results.data(), &count),
          "asking for algorithms");
    results.resize(static_cast<std::size_t>(count));
    std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
    return results;
  }

  void run(cublasLtHandle_t handle, void* stream, const cublasLtMatmulHeuristicResult_t& by, const Arguments& a) {
    if (has_bias_) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, a.inputs[2].data);
    constexpr float one = 1, zero = 0;
    void* d = a.outputs[0].data;
    check(cublas().multiply(handle, operation_.raw(), &one, a.inputs[product_.a.operand].data, a_.raw(),
                            a.inputs[product_.b.operand].data, b_.raw(), &zero, d, d_.raw(), d, d_.raw(), &by.algo,
                            by.workspaceSize ? aligned(a.workspace) : nullptr, by.workspaceSize,
                            static_cast<cudaStream_t>(stream)),
          "multiplying");
  }

 private:
  static constexpr std::size_t most_workspace = std::size_t{32} << 20;

  Layout layout(std::int64_t rows, std::int64_t columns) const {
    return {cublas().create_layout,
            cublas().destroy_layout,
            type_,
            static_cast<std::uint64_t>(rows),
            static_cast<std::uint64_t>(columns),
            rows};
  }
  void set(cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    check(cublas().set_operation(operation_.raw(), attribute, &value, sizeof value),
          "setting an operation's attribute");
  }

  Product product_;
  bool has_bias_;
  cudaDataType_t type_;
  Operation operation_;
  Layout a_, b_, d_;
};

/// The algorithm that runs, or why there is none.
struct Choice {
  std::optional<cublasLtMatmulHeuristicResult_t> algorithm = {};
  std::string reason = {};
};

/// What is kept for a driver.
struct Session {
  Handle handle{cublas().create_handle, cublas().destroy_handle};
  std::map<std::string, Choice> chosen = {};  ///< by description
};

std::shared_ptr<Session> session_of(Driver& driver) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  driver.native_stream();  // its device becomes the current one
  if (!driver.cublas) driver.cublas = std::make_shared<Session>();
  return std::static_pointer_cast<Session>(driver.cublas);
}

Launch launch_of(Driver& driver, const std::shared_ptr<Session>& session, const Convolution& convolution,
                 const cublasLtMatmulHeuristicResult_t& algorithm) {
  const auto problem = std::make_shared<Problem>(convolution);
  const auto run = [&driver, session, problem, algorithm, what = description_of(convolution)](const Arguments& a) {
    doing(what, [&] { problem->run(session->handle.raw(), driver.native_stream(), algorithm, a); });
  };
  return {.run = run, .workspace = algorithm.workspaceSize ? algorithm.workspaceSize + workspace_alignment : 0};
}

/// The first algorithm that runs and is right; looked for once.
const Choice& choose(Driver& driver, const std::shared_ptr<Session>& session, const Convolution& convolution) {
  const std::string description = description_of(convolution);
  if (const auto known = session->chosen.find(description); known != session->chosen.end()) return known->second;
  Choice choice{.reason = "cuBLAS has no algorithm that keeps sums in f32"};
  const auto algorithms = Problem(convolution).algorithms(session->handle.raw());
  if (!algorithms.empty()) {
    const Agreement agreement(driver, convolution);
    for (const auto& algorithm : algorithms) {
      try {
        choice.reason = agreement.differs(launch_of(driver, session, convolution, algorithm));
      } catch (const Failure& failure) {  // cuBLAS proposes more than it can do
        choice.reason = failure.what();
      }
      if (!choice.reason.empty()) continue;
      choice.algorithm = algorithm;
      break;
    }
  }
  return session->chosen.emplace(description, std::move(choice)).first->second;
}

}  // namespace

std::string why_no_cublas() { return opened().why_not; }

std::string decline_product(const Convolution& convolution) {
  if (std::string reason = decline_storages(convolution); !reason.empty()) return reason;
  const ConvProblem& p = convolution.problem;
  if (p.r != 1 || p.s != 1 || p.stride_h != 1 || p.stride_w != 1 || p.pad_h != 0 || p.pad_w != 0 || p.groups != 1 ||
      p.p != p.h || p.q != p.w)
    return "no product of matrices as they lie in memory";
  return {};
}

std::string decline_cublas(const Convolution& convolution, Driver& driver) {
  if (std::string reason = decline_product(convolution); !reason.empty()) return reason;
  if (!driver.native_stream()) return "no GPU";
  if (const char* off = environment("HALFTONE_CUBLAS"); off && std::string_view(off) == "0") return "HALFTONE_CUBLAS=0";
  if (std::string reason = why_no_cublas(); !reason.empty()) return reason;
  try {
    return choose(driver, session_of(driver), convolution).reason;
  } catch (const Failure& failure) {
    return failure.what();
  }
}

Launch make_cublas(const Convolution& convolution, Driver& driver) {
  const std::shared_ptr<Session> session = session_of(driver);
  const Choice& choice = choose(driver, session, convolution);
  if (!choice.algorithm) fail(choice.reason);
  return launch_of(driver, session, convolution, *choice.algorithm);
}

}  // namespace halftone::cuda

#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "halftone/graph/op.hpp"
#include "halftone/graph/step_state.hpp"

namespace halftone {

struct Node;

/// What a kernel factory sees: one node, its shapes and formats, and where it is to run.
struct Request {
  const Op& op;
  std::span<const ValueSpec> inputs, outputs;
  Device device;

  template <class T>
  const T& attributes() const {
    return static_cast<const T&>(op);
  }
};

/// Memory that one launch works on, settled when the plan is built.
struct Arguments {
  std::span<void*const> inputs, outputs;
  void* workspace = nullptr;
  StepState* state = nullptr;
  void* stream = nullptr;

  template <class T = void>
  const T* in(std::size_t i) const {
    return static_cast<const T*>(inputs[i]);
  }
  template <class T = void>
  T* out(std::size_t i) const {
    return static_cast<T*>(outputs[i]);
  }
};

/// A kernel made ready for one node. `run` only enqueues: it allocates nothing, waits for nothing, decides nothing.
struct Launch {
  std::function<void(const Arguments&)> run;
  std::size_t workspace = 0;  ///< bytes of scratch
  int overwrites = -1;        ///< the input whose memory output 0 may take, where nobody reads that input later
  bool on_host = false;       ///< `run` reads and writes through the backend's copies, so it cannot be captured
};

/// Why a factory does not take a request.
struct Declined {
  std::string reason;
};

using Offer = std::variant<Launch, Declined>;
using KernelFactory = Offer (*)(const Request&);

struct Kernel {
  const char* name;  ///< "implicit_gemm"
  KernelFactory make;
};

/// Rewrites a whole graph for a device before kernels are chosen: nodes may become others that only this kind of device
/// knows, also such as join several or work on tensors in a layout of their own (a vector of u8 to everybody else).
/// What is in `keep` or lies in a store must still be computed, in its format, and nodes that write stores keep their
/// order.
using Pass = void (*)(Graph& graph, const Device& device, std::span<const int> keep);

/// For each operation the ways to do it, best first, reference last. Plans, tests and reports walk the same lists. Then
/// the device's own passes in the order in which a plan runs them.
class KernelTable {
 public:
  explicit KernelTable(std::map<std::string, std::vector<Kernel>> kernels, std::vector<Pass> passes = {})
      : kernels_(std::move(kernels)), passes_(std::move(passes)) {}
  std::span<const Kernel> find(const std::string& operation) const;
  const std::map<std::string, std::vector<Kernel>>& all() const { return kernels_; }
  std::span<const Pass> passes() const { return passes_; }

 private:
  std::map<std::string, std::vector<Kernel>> kernels_;
  std::vector<Pass> passes_;
};

/// The launch that a request gets, and who declined before.
struct Choice {
  std::string kernel;  ///< "conv2d/implicit_gemm"; empty where all declined
  Launch launch;
  std::vector<std::string> declined;  ///< "conv2d/implicit_gemm: groups"
};

/// Asks an operation's own `lower`, then its list in order.
Choice choose_kernel(const Request& request);
Choice choose_kernel(const Graph& graph, const Node& node, const Device& device);

}  // namespace halftone

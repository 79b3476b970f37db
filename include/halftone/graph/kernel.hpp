#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <typeindex>
#include <vector>

#include "halftone/graph/op.hpp"
#include "halftone/graph/step_state.hpp"

namespace halftone {

struct Node;

/// What a kernel factory sees: one node, its shapes and storages, and where it is to run.
struct Request {
  const Op& op;
  std::span<const ValueSpec> inputs, outputs;
  Device device;

  template <class T>
  const T& attributes() const {
    return static_cast<const T&>(op);
  }
};

/// Where a value lies, and what it takes to write it.
struct Memory {
  void* data = nullptr;
  RangeState* range = nullptr;          ///< of a storage that has one, in device memory
  std::uint32_t stream = 0;             ///< of the random numbers that its rounding draws
  std::int32_t node = StepState::none;  ///< that writes it, for reports

  float read_scale(const Storage& storage) const { return range ? range->scale : storage.first_scale(); }
  float write_scale(const Storage& storage) const { return range ? range->next : storage.first_scale(); }
};

/// Memory that one launch works on, settled when the plan is built.
struct Arguments {
  std::span<const Memory> inputs, outputs;
  void* workspace = nullptr;
  StepState* state = nullptr;
  void* stream = nullptr;

  template <class T = void>
  const T* in(std::size_t i) const {
    return static_cast<const T*>(inputs[i].data);
  }
  template <class T = void>
  T* out(std::size_t i) const {
    return static_cast<T*>(outputs[i].data);
  }
  /// What the rounding of a value draws in this step.
  RandomKey key(const Memory& value) const { return state->key(value.stream); }
};

/// A kernel made ready for one node. `run` only enqueues: it allocates nothing, waits for nothing, decides nothing.
struct Launch {
  std::function<void(const Arguments&)> run;
  std::size_t workspace = 0;  ///< bytes of scratch
  int overwrites = -1;        ///< the input whose memory output 0 may take, where nobody reads that input later
  bool on_host = false;       ///< `run` reads and writes through the backend's copies, so it cannot be captured
  std::function<void(const Arguments&)> prepare = {};  ///< called before the first run, when memory is settled
};

/// Whether a tensor may be written, run by run, over another that was read: each number takes the same place.
inline bool same_places(const ValueSpec& a, const ValueSpec& b) {
  const auto alone = [](const Storage& s) { return s.block == 0 && s.scaling != Scaling::tensor; };
  return bits_of(a.storage.code) == bits_of(b.storage.code) && alone(a.storage) && alone(b.storage);
}

/// Whether a kernel reads or writes numbers that are stored so.
using Takes = bool (*)(const Storage& storage);
inline bool any_storage(const Storage&) { return true; }
/// All numbers need not be known before the first is written.
inline bool any_runs(const Storage& storage) { return storage.scaling != Scaling::tensor; }
/// And runs may begin and end anywhere.
inline bool unpacked_storage(const Storage& storage) { return any_runs(storage) && storage.granule() == 1; }

/// One way to do an operation. `make` is called for requests that are not declined, and settles everything. A value in
/// a storage that the kernel does not take is f32 to it, by casts in the same launch; so outputs that exist already
/// must be taken.
struct Kernel {
  const char* name;  ///< "implicit_gemm"
  Launch (*make)(const Request&);
  std::string (*decline)(const Request&) = nullptr;  ///< says why it does not take a request, else nothing
  Takes writes = unpacked_storage;                   ///< more only where its runs fit `Storage::granule`
  Takes reads = any_storage;
  /// How fast it is predicted to be, as a share of `Backend::multiply_add_peak`; 0: it cannot do it.
  double (*predict)(const Request&) = nullptr;

  bool takes(const Request& request) const;  ///< all values as they are stored
};

/// Rewrites a whole graph for a device before kernels are chosen: nodes may become others that only this kind of device
/// knows, also such as join several or work on tensors in a layout of their own (a vector of u8 to everybody else).
/// What is in `keep` or lies in a store must still be computed, in its storage, and nodes that write stores keep their
/// order.
using Pass = void (*)(Graph& graph, const Device& device, std::span<const int> keep);

/// For each type of operation the ways to do it, best first, reference last. Plans, tests and reports walk the same
/// lists. Then the device's own passes in the order in which a plan runs them.
class KernelTable {
 public:
  struct List {
    std::string operation;
    std::vector<Kernel> kernels;
  };
  using Lists = std::map<std::type_index, List>;

  /// The entry for operations of one type.
  template <class Operation>
  static Lists::value_type list(std::string operation, std::vector<Kernel> kernels) {
    static_assert(std::is_base_of_v<Op, Operation>);
    return {typeid(Operation), {std::move(operation), std::move(kernels)}};
  }

  explicit KernelTable(Lists lists, std::vector<Pass> passes = {})
      : lists_(std::move(lists)), passes_(std::move(passes)) {}
  std::span<const Kernel> find(const Op& op) const;
  const Lists& all() const { return lists_; }
  std::span<const Pass> passes() const { return passes_; }

 private:
  Lists lists_;
  std::vector<Pass> passes_;
};

/// The launch that a request gets, and who declined before.
struct Choice {
  std::string kernel;  ///< "conv2d/implicit_gemm"; empty where all declined
  Launch launch;
  std::vector<std::string> declined;  ///< "conv2d/implicit_gemm: groups"
};

/// As a kernel sees its inputs: only who writes a value notices it.
std::vector<ValueSpec> as_read(std::vector<ValueSpec> inputs);

/// Whether an operation has a kernel of its own (`Op::lower`) or a listed one takes it, without making any.
bool has_kernel(const Request& request);

/// Asks an operation's own `lower`, then its list in order.
Choice choose_kernel(const Request& request);
Choice choose_kernel(const Graph& graph, const Node& node, const Device& device);

}  // namespace halftone

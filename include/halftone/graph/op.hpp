#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "halftone/graph/value.hpp"
#include "halftone/numeric/pointwise.hpp"

namespace halftone {

struct Request;
struct Launch;

/// What `Op::gradient` gets: a node's values and the gradients of its outputs (none where nothing flows back).
struct GradientRequest {
  std::span<const Value> inputs, outputs, d_outputs;
  std::vector<bool> wanted;  ///< per input: does anybody need its gradient
};

/// How many inputs an operation takes.
struct Arity {
  int least, most;
  static constexpr int any = 1 << 30;
  constexpr Arity(int exactly) : least(exactly), most(exactly) {}  // NOLINT(google-explicit-constructor): 2 means two
  constexpr Arity(int the_least, int the_most) : least(the_least), most(the_most) {}
};

/// An operation: typed attributes and what can be said of them without any kernel. Kernel tables list it by its type.
class Op {
 public:
  virtual ~Op() = default;

  /// For people: nodes are called by it.
  virtual std::string name() const = 0;

  /// `infer` is not asked about any other number of inputs.
  virtual Arity arity() const { return 1; }

  /// Outputs' shapes and roles from the inputs'; throws Error for inputs that do not fit.
  virtual std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const = 0;

  /// Adds nodes that compute the inputs' gradients and returns these, one per input, none where nothing flows. Throws
  /// Error where the operation cannot be differentiated, which is the default.
  virtual std::vector<Value> gradient(const GradientRequest& request) const;

  /// Adds nodes that write what lasts (running statistics), to run behind the flags `good` or `commit`.
  virtual void commit(std::span<const Value> inputs, std::span<const Value> outputs) const;

  /// The operation to run instead in evaluation; null where it is the same.
  virtual std::shared_ptr<const Op> inference() const { return nullptr; }

  /// The same operation followed by an activation in one kernel; null where there is none.
  virtual std::shared_ptr<const Op> with_epilogue(const Activation& activation) const;

  /// Whether an activation has been joined to it.
  virtual bool is_fused() const { return false; }

  /// The activation that this operation is and nothing else; null for all others.
  virtual const Activation* as_activation() const { return nullptr; }

  /// The activation whose slope at its second input this operation multiplies its first by; null for all others.
  virtual const Activation* as_slope() const { return nullptr; }

  /// The same operation, which reads the output of an activation second, followed by the slope there in one kernel;
  /// null where there is none.
  virtual std::shared_ptr<const Op> with_slope(const Activation& activation) const;

  /// Whether this operation adds its two inputs and does nothing else.
  virtual bool is_sum() const { return false; }

  /// Whether its first input may be given as two, whose sum it then is.
  virtual bool takes_sum() const { return false; }

  /// True where output 0 is input 0's memory under another shape.
  virtual bool is_view() const { return false; }

  /// True where output 0 holds numbers of input 0 and no others: `narrow` stores it as signs where that is.
  virtual bool selects() const { return false; }

  /// Multiplications and additions that its definition takes; 0 where moving the numbers takes the time.
  virtual double operations(std::span<const ValueSpec> inputs, std::span<const ValueSpec> outputs) const;

  /// For operations that bring their own kernel; the launch's `run` is empty where there is none.
  virtual Launch lower(const Request& request) const;
};

/// An operation number by number on tensors of one shape.
struct Elementwise : Op {
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

/// [d_output, x, ...] -> d_x.
struct InputGradient : Op {
  std::vector<ValueSpec> infer(std::span<const ValueSpec> inputs) const override;
};

/// An operation that can have an activation on its way out. `Derived` is the operation itself.
template <class Derived, class Base = Op>
struct Fusable : Base {
  std::optional<Activation> epilogue;
  bool is_fused() const final { return epilogue.has_value(); }
  std::shared_ptr<const Op> with_epilogue(const Activation& activation) const final {
    if (epilogue) return nullptr;
    auto fused = std::make_shared<Derived>(static_cast<const Derived&>(*this));
    fused->epilogue = activation;
    return fused;
  }
};

}  // namespace halftone

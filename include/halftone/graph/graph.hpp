#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "halftone/graph/op.hpp"

namespace halftone {

/// Fills a parameter at birth; the random numbers to use are those of (seed, stream).
using Initializer = std::function<void(std::span<float> values, std::uint64_t seed, std::uint32_t stream)>;

/// Memory that outlasts a step. A value without such a home lives in a plan's arena. Those from `weights` to `average`
/// hold numbers for each parameter; `state` is the step's state, `ranges` all scales that move.
enum class Store {
  none,
  weights,
  masters,
  gradients,
  accumulated,
  slot0,
  slot1,
  compensation,
  average,
  statistics,
  averaged_statistics,
  kept_statistics,
  state,
  ranges,
  count
};
inline constexpr std::size_t store_count = static_cast<std::size_t>(Store::count);

/// The number of a node, value or parameter, or a store, as an index.
template <class Number>
constexpr std::size_t at(Number number) {
  return static_cast<std::size_t>(number);
}

/// "weights", "masters", ...: also the names that checkpoints use.
const char* name_of(Store store);

struct Node {
  std::shared_ptr<const Op> op;
  std::vector<int> inputs, outputs;
  std::string name;  ///< with scope: "stage1.block0.conv1"
};

struct ValueInfo {
  ValueSpec spec;
  std::string name;
  Store store = Store::none;
  int owner = -1;          ///< in a store: the number of the parameter or statistic
  std::size_t offset = 0;  ///< bytes within the store; set by `Parameters::place`
  int same_as = -1;        ///< a value that has the same numbers, computed earlier, and whose rounding drew the same
};

struct ParameterInfo {
  std::string name;
  int value = -1;
  Initializer initializer;
  int rank = 4;  ///< of the shape that files show: 4 KRSC, 2 [rows, columns], 1 vector
  bool trainable = true;
  int gradient = -1;     ///< value; set by `differentiate`
  Shape flattened = {};  ///< of a dense layer's weight: the image [1, h, w, c] of more than a pixel that it takes
};

struct StatisticInfo {
  std::string name;
  int value = -1;
  float initial = 0;
  std::vector<float> values = {};  ///< at birth, where they are not all `initial`
};

/// What a graph consists of.
struct GraphBody {
  std::vector<Node> nodes;        ///< in the order in which they run
  std::vector<ValueInfo> values;  ///< by number
  std::vector<int> inputs;
  std::vector<ParameterInfo> parameters;
  std::vector<StatisticInfo> statistics;
  std::string scope;                            ///< with its final dot
  std::map<std::string, std::string> metadata;  ///< what a checkpoint's model says of the net, its inputs above all
  std::vector<std::string> recomputed;          ///< scopes whose activations are not kept for the backward pass
  bool evaluates = false;  ///< made by `for_inference`: random rounding draws the same numbers every time
  std::map<std::string, int> counters;
  std::uint32_t streams = 0;
  std::uint64_t identity = 0;
};

/// A handle to nodes, the values between them, and the parameters they share; copies of it name the same graph. A
/// `clone` is independent, and a `Value`'s number means the same tensor in it.
class Graph {
 public:
  Graph();
  Graph clone() const;
  bool operator==(const Graph&) const = default;  ///< the same one

  /// A tensor that the user feeds; throws Error for an extent below 1.
  Value input(const std::string& name, Shape shape, DType dtype = DType::f32);

  /// A trainable tensor, named within the current scope; throws Error where the name is taken or `rank` (as in
  /// `ParameterInfo`) does not fit the shape.
  Value parameter(const std::string& name, Shape shape, Initializer initializer, int rank, bool trainable = true);

  /// A lasting f32 vector that is not trained, such as a running mean; throws Error as `parameter` does.
  Value statistic(const std::string& name, Shape shape, float initial);

  /// A value in a store: what it holds for a parameter or, in `state` and `ranges`, all of it as u8.
  Value stored(const std::string& name, ValueSpec spec, Store store, int owner = -1);

  /// The step's state, for nodes that read or write it; the same value at every call.
  Value state();

  /// Adds a node; its name is the scope, `label` (else the operation's name) and a running number. Throws Error naming
  /// the node for inputs that are too few, too many, of another graph, or do not fit.
  std::vector<Value> add(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::string& label = {});
  Value add_one(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::string& label = {});

  /// Adds a node that writes values which exist already; throws Error as `add` does.
  void add_writing(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::vector<Value>& outputs,
                   const std::string& label = {});

  Value value(int id) { return {body_, id}; }
  ValueInfo& info(int id) { return body_->values[at(id)]; }
  const ValueInfo& info(int id) const { return body_->values[at(id)]; }
  std::vector<ValueSpec> specs(std::span<const int> ids) const;
  std::string scoped(const std::string& name) const;
  /// `base` and the next number that it has in this scope: "conv1".
  std::string numbered(const std::string& base);
  /// A stream of random numbers that nobody else in this graph draws from.
  std::uint32_t new_stream() { return body_->streams++; }

  /// Differs from that of every other graph there is or was, also from that of a clone.
  std::uint64_t identity() const { return body_->identity; }

  GraphBody* operator->() { return body_.get(); }
  const GraphBody* operator->() const { return body_.get(); }

 private:
  friend Graph graph_of(const Value& value);
  explicit Graph(std::shared_ptr<GraphBody> body) : body_(std::move(body)) {}
  Value new_value(ValueSpec spec, std::string name);
  std::vector<int> numbers_of(const Node& node, const std::vector<Value>& values) const;
  std::shared_ptr<GraphBody> body_;
};

/// While it lives, names in the graph begin with `name` and a dot.
class Scope {
 public:
  Scope(Graph graph, const std::string& name) : graph_(std::move(graph)), before_(graph_->scope) {
    graph_->scope += name + ".";
  }
  ~Scope() { graph_->scope = before_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Graph graph_;
  std::string before_;
};

/// Whether a node or parameter lies in a scope or is it: "stage1.conv1.weight" lies in "stage1", "stage1." and
/// "stage1.conv1", but not in "stage1.conv". Everything lies in "".
bool in_scope(const std::string& name, const std::string& scope);

/// Nodes that read each value, as node numbers.
std::vector<std::vector<int>> readers(const Graph& graph);

/// Removes all nodes that compute nothing `outputs` needs.
void prune(Graph& graph, std::span<const int> outputs);

/// A clone with another batch size: each input's first extent becomes `batch` and all shapes are inferred anew.
Graph with_batch(const Graph& graph, std::int64_t batch);

/// A clone that computes `outputs` in evaluation: pruned, operations in their inference form.
Graph for_inference(const Graph& graph, std::span<const int> outputs);

}  // namespace halftone

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

/// Memory that outlasts a step. A value without such a home lives in a plan's arena.
enum class Store { none, weights, masters, gradients, accumulated, slot0, slot1, average, statistics, count };

struct Node {
  std::shared_ptr<const Op> op;
  std::vector<int> inputs, outputs;
  std::string name;  ///< with scope: "stage1.block0.conv1"
};

struct ValueInfo {
  ValueSpec spec;
  std::string name;
  Store store = Store::none;
  std::size_t offset = 0;  ///< bytes within the store
};

struct ParameterInfo {
  std::string name;
  int value = -1;
  Initializer initializer;
  int rank = 4;  ///< of the shape that files show: 4 KRSC, 2 [rows, columns], 1 vector
  bool trainable = true;
  int gradient = -1;  ///< value; set by `differentiate`
};

struct StatisticInfo {
  std::string name;
  int value = -1;
  float initial = 0;
};

/// Nodes in the order in which they run, the values between them, and the parameters they share. Copies are
/// independent; a `Value`'s number means the same tensor in a copy.
class Graph {
 public:
  /// A tensor that the user feeds; throws Error for an extent below 1.
  Value input(const std::string& name, Shape shape, DType dtype = DType::f32);

  /// A trainable tensor, named within the current scope; throws Error where the name is taken or `rank` (as in
  /// `ParameterInfo`) does not fit the shape.
  Value parameter(const std::string& name, Shape shape, Initializer initializer, int rank, bool trainable = true);

  /// A lasting f32 vector that is not trained, such as a running mean; throws Error as `parameter` does.
  Value statistic(const std::string& name, Shape shape, float initial);

  /// A value in a store, for nodes that work on whole stores.
  Value stored(const std::string& name, ValueSpec spec, Store store, std::size_t offset = 0);

  /// Adds a node; its name is the scope, `label` (else the operation's name) and a running number. Throws Error naming
  /// the node.
  std::vector<Value> add(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::string& label = {});
  Value add_one(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::string& label = {});

  /// Adds a node that writes values which exist already.
  void add_writing(std::shared_ptr<const Op> op, const std::vector<Value>& inputs, const std::vector<Value>& outputs,
                   const std::string& label = {});

  Value value(int id) { return {this, id}; }
  ValueInfo& info(int id) { return values[static_cast<std::size_t>(id)]; }
  const ValueInfo& info(int id) const { return values[static_cast<std::size_t>(id)]; }
  std::vector<ValueSpec> specs(std::span<const int> ids) const;
  std::string scoped(const std::string& name) const;
  /// `base` and the next number that it has in this scope: "conv1".
  std::string numbered(const std::string& base);
  /// A stream of random numbers that nobody else in this graph draws from.
  std::uint32_t new_stream() { return streams_++; }

  /// Differs from that of every other graph there is or was, also from that of a copy.
  std::uint64_t identity() const { return identity_.number; }

  std::vector<Node> nodes;
  std::vector<ValueInfo> values;
  std::vector<int> inputs;
  std::vector<ParameterInfo> parameters;
  std::vector<StatisticInfo> statistics;
  std::string scope;  ///< with its final dot

 private:
  friend class Scope;
  struct Identity {
    Identity();
    Identity(const Identity&) : Identity() {}
    Identity& operator=(const Identity&) { return number = Identity().number, *this; }
    std::uint64_t number;
  };
  Value new_value(ValueSpec spec, std::string name);
  Identity identity_;
  std::map<std::string, int> counters_;
  std::uint32_t streams_ = 0;
};

/// While it lives, names in the graph begin with `name` and a dot.
class Scope {
 public:
  Scope(Graph& graph, const std::string& name) : graph_(graph), before_(graph.scope) { graph.scope += name + "."; }
  ~Scope() { graph_.scope = before_; }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Graph& graph_;
  std::string before_;
};

/// Whether a node or parameter lies in a scope or is it: "stage1.conv1.weight" lies in "stage1", "stage1." and
/// "stage1.conv1", but not in "stage1.conv". Everything lies in "".
bool in_scope(const std::string& name, const std::string& scope);

/// Nodes that read each value, as node numbers.
std::vector<std::vector<int>> readers(const Graph& graph);

/// Removes all nodes that compute nothing `outputs` needs.
void prune(Graph& graph, std::span<const int> outputs);

/// The graph with another batch size: each input's first extent becomes `batch` and all shapes are inferred anew.
Graph with_batch(const Graph& graph, std::int64_t batch);

/// What computes `outputs` in evaluation: pruned, operations in their inference form.
Graph for_inference(const Graph& graph, std::span<const int> outputs);

}  // namespace halftone

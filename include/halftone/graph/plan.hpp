#pragma once
#include <string>
#include <vector>

#include "halftone/graph/kernel.hpp"
#include "halftone/graph/parameters.hpp"

namespace halftone {

/// A graph made ready to run on a device: a kernel for every node, a place for every value, then a list of launches
/// that allocates nothing and decides nothing. The parameters must outlive the plan.
class Plan {
 public:
  /// Throws Error naming the node for which no kernel was found, and the first that does in training what it does not
  /// in evaluation (batch norm, dropout) where the graph is neither differentiated nor made by `for_inference`. The
  /// values in `keep` stay readable after a run. The graph is cloned.
  Plan(const Graph& graph, const Parameters& parameters, std::span<const int> keep = {});
  Plan(const Graph& graph, const Parameters&& parameters, std::span<const int> keep = {}) = delete;

  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void run() const {
    for (const auto& replay : replays_) replay();
  }

  /// A value's memory; throws Error for a value that was neither an input, nor kept, nor lasting.
  TensorView view(int id) const;

  /// Runs once and returns the seconds of each launch, in the order of `kernels()`.
  std::vector<double> profile() const;

  struct Report {
    std::size_t number;  ///< of the node in `graph()`
    std::string node, kernel;
    std::vector<std::string> declined;  ///< better kernels, with their reasons
  };
  const std::vector<Report>& kernels() const { return reports_; }

  struct Placement {
    int value;
    std::size_t offset, bytes;
    int first, last;  ///< launches between which the value lives, both included
  };
  const std::vector<Placement>& placements() const { return placements_; }  ///< of the arena

  std::size_t arena_bytes() const { return arena_.bytes(); }
  std::size_t workspace_bytes() const { return workspace_.bytes(); }
  const Graph& graph() const { return graph_; }

 private:
  struct Step {
    Launch launch;
    std::vector<Memory> inputs, outputs;
  };
  void make_state();
  void widen_unknown();
  void choose(std::vector<int>& root);
  void place(const std::vector<int>& root, std::span<const int> keep);
  void bind();
  void capture();
  Arguments arguments(const Step& step) const;

  Graph graph_;
  const Parameters& parameters_;
  std::vector<Step> steps_;
  std::vector<int> step_nodes_;
  std::vector<Report> reports_;
  std::vector<Placement> placements_;
  std::vector<Memory> memory_;  // by value; null where it was not placed
  std::vector<bool> readable_;
  Buffer arena_, workspace_, state_;            // state_: of an evaluation, which does not change
  std::vector<std::function<void()>> replays_;  // runs of launches, each captured as one
};

/// Gives each interval a place such that no two that live at the same time overlap, large ones first, and returns the
/// bytes needed. All offsets are multiples of 64.
std::size_t place_intervals(std::vector<Plan::Placement>& intervals);

}  // namespace halftone

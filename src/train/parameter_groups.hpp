#pragma once
#include "halftone/graph/graph.hpp"
#include "halftone/train/options.hpp"

namespace halftone {

inline bool fits(const ParameterGroup& group, const std::string& name, int rank) {
  return in_scope(name, group.scope) && name.ends_with(group.ending) && group.rank.value_or(rank) == rank;
}

/// The group that a parameter belongs to, the first that fits; the number of groups where none does.
inline std::size_t group_of(const std::vector<ParameterGroup>& groups, const std::string& name, int rank) {
  std::size_t g = 0;
  while (g < groups.size() && !fits(groups[g], name, rank)) ++g;
  return g;
}

/// Whether the parameter's group is no longer trained after `steps` committed steps.
inline bool is_frozen(const std::vector<ParameterGroup>& groups, const std::string& name, int rank,
                      std::int64_t steps) {
  const std::size_t g = group_of(groups, name, rank);
  return g < groups.size() && groups[g].until <= steps;
}

}  // namespace halftone

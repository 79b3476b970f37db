#pragma once
#include <map>
#include <string>

#include "halftone/graph/step_state.hpp"
#include "halftone/numeric/range.hpp"

namespace halftone {

// What of the states in device memory a checkpoint holds: named fields, each a decimal number in a file's metadata. A
// field that a file lacks keeps its first value; a scale's is its storage's.

void put_fields(const StepState& state, std::map<std::string, std::string>& metadata);
void put_fields(const RangeState& state, const std::string& value, std::map<std::string, std::string>& metadata);
void put_scale(const RangeState& state, const std::string& value, std::map<std::string, std::string>& metadata);

/// Throws Error naming a field that no training leaves so, nor one of the seed and micro-batches that the metadata has
/// beside the state.
StepState step_state_of(const std::map<std::string, std::string>& metadata);
RangeState range_state_of(const std::map<std::string, std::string>& metadata, const std::string& value,
                          float first_scale);
/// Whether the file knows a scale for that value.
bool has_scale(const std::map<std::string, std::string>& metadata, const std::string& value);

}  // namespace halftone

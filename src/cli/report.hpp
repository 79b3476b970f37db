#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/progress.hpp"
#include "halftone/inspect/histogram.hpp"

namespace halftone::cli {

using Json = nlohmann::ordered_json;  // members stay in the order in which they are set

Json to_json(const MemoryReport& memory);
Json to_json(const NumericsReport& numerics);
Json to_json(const EpochResult& epoch);
/// `exponents` {power of two: count}, `zeros` (a share), `numbers` and `largest`.
Json to_json(const ExponentHistogram& seen);

/// Training loss and test errors at the end of a run; null where nothing was measured.
Json final_results(const std::vector<EpochResult>& epochs);

/// "mnist", "digits (synthetic)".
std::string name_for_people(const Dataset& data);

/// A text as a field of a CSV file (RFC 4180), in quotes where it must be.
std::string csv_field(const std::string& text);

/// Names the files that were left out, the first few of them, or prints nothing.
void print_left_out(const Dataset& data);

/// Writes `json` to `file` where that is not empty.
void write_json(const std::string& file, const Json& json);

}  // namespace halftone::cli

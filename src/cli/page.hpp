#pragma once
#include <string>
#include <string_view>

#include "cli/plot.hpp"
#include "cli/report.hpp"

// What the program's HTML reports have in common.
namespace halftone::cli {

/// A page that needs nothing else, light or dark as its reader has it; `content` is HTML, the rest is text.
std::string page(std::string_view title, std::string_view content, std::string_view foot);

/// A heading, what the plot below says and what would be bad, and the plot.
std::string section(std::string_view title, std::string_view says, const std::string& svg);

/// A line a system from its `precision`, `verdict`, `reason` and, where they are there, `loss_scale` and `advice`.
std::string verdict_list(const Json& systems);

/// A row from the `exponents` and `zeros` of what was seen.
HistogramRow histogram_row(const std::string& name, const Json& seen);

/// Says so where a report's data is `synthetic`.
std::string synthetic_note(const Json& report);

}  // namespace halftone::cli

#pragma once
#include <string>

#include "cli/report.hpp"

namespace halftone::cli {

/// What the doctor found (its `--json`) as one HTML page that needs nothing else.
std::string doctor_page(const Json& found);

}  // namespace halftone::cli

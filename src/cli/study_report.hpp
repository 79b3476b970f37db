#pragma once
#include <string>

#include "cli/report.hpp"

namespace halftone::cli {

/// "1.02 ± 0.04", in percent, of one of a study's systems.
std::string error_text(const Json& system);

/// A study (`study.json`) as one HTML page that needs nothing else.
std::string study_page(const Json& study);

}  // namespace halftone::cli

#pragma once
#include "halftone/inspect/doctor.hpp"

namespace halftone {

SafeScales safe_scales(const std::vector<WatchedTensor>& tensors);

/// "none", "dynamic", "1024".
std::string spelled(const LossScale& scale);

/// Whether the fidelity alone tells a verdict.
bool settled(const Fidelity& fidelity);
/// Verdict, reason and advice from what was measured.
void decide(Prognosis& prognosis, const SafeScales& scales);

std::string cheapest_storage(const WatchedTensor& tensor);
/// What to suggest, the cheapest first, f32 last.
std::vector<Precision> candidates(const Diagnosis& found);
Suggestion suggestion(const Precision& precision);

}  // namespace halftone

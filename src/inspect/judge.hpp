#pragma once
#include "halftone/inspect/doctor.hpp"

namespace halftone {

SafeScales safe_scales(const std::vector<WatchedTensor>& tensors);

/// "none", "dynamic", "1024".
std::string spelled(const LossScale& scale);

/// From the loss of the first step and the mean ones at the end, f32's and its own; infinite where those are lost.
Prognosis::Rehearsal rehearsal(double first, double f32, double own);

/// Whether the fidelity alone tells a verdict.
bool settled(const Fidelity& fidelity);
/// Verdict, reason and advice from what was measured.
void decide(Prognosis& prognosis, const SafeScales& scales);

std::string cheapest_storage(const WatchedTensor& tensor);
/// What to suggest, the cheapest first, f32 last.
std::vector<Precision> candidates(const Diagnosis& found);
Suggestion suggestion(const Precision& precision);

}  // namespace halftone

#include "halftone/ops/step.hpp"

namespace halftone {

std::vector<Segment> segments_of(const Parameters& parameters, std::span<const int> group) {
  std::vector<Segment> segments;
  const auto take = [&](int i) {
    const ParameterSlot& slot = parameters.slots[static_cast<std::size_t>(i)];
    if (slot.trainable)
      segments.push_back({slot.offset, slot.count, slot.weight_dtype, slot.gradient_dtype, slot.weight_offset,
                          slot.gradient_offset, i});
  };
  if (group.empty())
    for (int i = 0; i < static_cast<int>(parameters.slots.size()); ++i) take(i);
  for (int i : group) take(i);
  return segments;
}

}  // namespace halftone

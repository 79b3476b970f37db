#include "halftone/train/options.hpp"

#include <fmt/format.h>

#include <cmath>

namespace halftone {

void check(const TrainerOptions& options) {
  if (options.accumulate < 1) fail(fmt::format("accumulate: {} micro-batches a step", options.accumulate));
  if (!(options.clip_norm >= 0)) fail(fmt::format("clip_norm: {} is not a norm", options.clip_norm));
  if (!(options.average_decay >= 0 && options.average_decay < 1))
    fail(fmt::format("average_decay: {} is not in [0, 1)", options.average_decay));
  if (int exponent; !std::isnormal(options.stress) || !std::isnormal(1 / options.stress) ||
                    std::frexp(options.stress, &exponent) != 0.5f)
    fail(fmt::format("stress {}: it must be a power of two, so that it divides out exactly", options.stress));
  if (const char* fault = options.schedule.fault()) fail(fmt::format("schedule: {}", fault));
  if (const char* fault = options.precision.loss_scale.fault())
    fail(fmt::format("loss scale {}: {}", options.precision.loss_scale.options.initial, fault));
}

}  // namespace halftone

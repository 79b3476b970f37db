#pragma once
#include <time.h>

namespace halftone {

/// Seconds by a clock of the system, such as CLOCK_THREAD_CPUTIME_ID: what this thread got of a processor.
inline double seconds_by(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

}  // namespace halftone

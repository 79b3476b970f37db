#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/storage.hpp"

namespace halftone::cpu {

/// Elements in a task of `for_chunks`, a multiple of `chunk`: less is not worth another thread.
inline constexpr std::int64_t chunk_task = 8 * chunk;

/// Calls f(first, count) for all of `elements` in runs of `chunk`, the last one shorter.
template <class F>
void for_chunks(int threads, std::int64_t elements, const F& f) {
  parallel_for(threads, (elements + chunk_task - 1) / chunk_task, [&](std::int64_t task) {
    const std::int64_t end = std::min(elements, (task + 1) * chunk_task);
    for (std::int64_t first = task * chunk_task; first < end; first += chunk) f(first, std::min(chunk, end - first));
  });
}

}  // namespace halftone::cpu

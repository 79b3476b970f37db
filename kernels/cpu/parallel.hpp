#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace halftone::cpu {

/// Calls f(task) or f(task, thread) once for every task in [0, tasks), thread t taking the t-th contiguous share. What
/// a task computes must not depend on the number of threads: cut the work by shapes alone.
template <class F>
void parallel_for(int threads, std::int64_t tasks, F&& f) {
  const int team = static_cast<int>(std::clamp<std::int64_t>(tasks, 1, std::max(threads, 1)));
  const auto share = [&](int thread) {
    for (std::int64_t task = tasks * thread / team; task < tasks * (thread + 1) / team; ++task) {
      if constexpr (std::is_invocable_v<F&, std::int64_t, int>) {
        f(task, thread);
      } else {
        f(task);
      }
    }
  };
  if (team == 1) return share(0);
#pragma omp parallel for num_threads(team) schedule(static, 1)
  for (int thread = 0; thread < team; ++thread) share(thread);
}

}  // namespace halftone::cpu

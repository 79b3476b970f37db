#pragma once
#include <cstdint>
#include <type_traits>

namespace halftone::cpu {

/// Calls task(context, i, thread) once for every i in [0, tasks), on the calling thread (number 0) and on up to threads
/// - 1 others, each beginning with a share of them. Returns when all are done; it waits for no thread that has no
/// task. Where the helpers are busy for somebody else, the caller does all.
void run_tasks(int threads, std::int64_t tasks, void (*task)(void* context, std::int64_t i, int thread), void* context);

/// Calls f(task) or f(task, thread) once for every task in [0, tasks). What a task computes must depend neither on the
/// number of threads nor on which one runs it: cut the work by shapes alone.
template <class F>
void parallel_for(int threads, std::int64_t tasks, F&& f) {
  const auto call = [](void* context, std::int64_t i, int thread) {
    auto& body = *static_cast<std::remove_reference_t<F>*>(context);
    if constexpr (std::is_invocable_v<F&, std::int64_t, int>) {
      body(i, thread);
    } else {
      body(i);
    }
  };
  run_tasks(threads, tasks, call, const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace halftone::cpu

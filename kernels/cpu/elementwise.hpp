#pragma once
#include <algorithm>
#include <array>

#include "kernels/cpu/backend.hpp"
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

/// y[i] = f(x[0][i], x[1][i], ...) over one chunk of f32 numbers; y may be one of the x.
template <std::size_t arity>
struct Chunk {
  std::array<const float*, arity> x;
  float* y;
  std::int64_t first, count;  ///< elements of the tensors
  const StepState* state;
};

/// The launch that calls f(Chunk) for all chunks of a request whose inputs and output have one shape and any storages.
template <std::size_t arity, class F>
Launch elementwise(const Request& request, F f) {
  const Machine machine = machine_of(request);
  const Access written(machine.isa, request.outputs[0]);
  std::array<Access, arity> read;
  int overwrites = -1;
  for (std::size_t i = arity; i-- > 0;) {
    read[i] = Access(machine.isa, request.inputs[i]);
    if (same_places(request.inputs[i], request.outputs[0])) overwrites = static_cast<int>(i);
  }
  const std::int64_t elements = request.outputs[0].shape.elements();
  const auto run = [=](const Arguments& arguments) {
    const Output y(written, arguments, 0);
    for_chunks(machine.threads, elements, [&](std::int64_t first, std::int64_t count) {
      alignas(64) float buffers[arity][chunk];
      Chunk<arity> part{{}, y.place(first, buffers[0]), first, count, arguments.state};
      for (std::size_t i = 0; i < arity; ++i) part.x[i] = Input(read[i], arguments.inputs[i])(first, count, buffers[i]);
      f(part);
      y(first, count, part.y);
    });
  };
  return {run, 0, overwrites};
}

}  // namespace halftone::cpu

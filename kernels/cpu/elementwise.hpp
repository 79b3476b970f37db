#pragma once
#include <array>

#include "kernels/cpu/rows.hpp"

namespace halftone::cpu {

/// y[i] = f(x[0][i], x[1][i], ...) over one chunk of f32 numbers; y may be one of the x.
template <std::size_t arity>
struct Chunk {
  std::array<const float*, arity> x;
  float* y;
  std::int64_t first, count;  ///< elements of the tensors
  const StepState* state;
};

/// The launch that calls f(Chunk) for all chunks of a request whose inputs and output have one shape and any formats.
template <std::size_t arity, class F>
Launch elementwise(const Request& request, F f) {
  const Machine machine = machine_of(request);
  const Writer write(machine, request.outputs[0]);
  std::array<Reader, arity> readers;
  int overwrites = -1;
  for (std::size_t i = arity; i-- > 0;) {
    readers[i] = Reader(machine, request.inputs[i]);
    if (size_of(request.inputs[i].dtype) == size_of(request.outputs[0].dtype)) overwrites = static_cast<int>(i);
  }
  const std::int64_t elements = request.outputs[0].shape.elements();
  const auto run = [=](const Arguments& arguments) {
    for_chunks(machine.threads, elements, [&](std::int64_t first, std::int64_t count) {
      alignas(64) float buffers[arity][chunk];
      Chunk<arity> part{{}, write.place(arguments.outputs[0], first, buffers[0]), first, count, arguments.state};
      for (std::size_t i = 0; i < arity; ++i) part.x[i] = readers[i](arguments.inputs[i], first, count, buffers[i]);
      f(part);
      write(arguments.outputs[0], first, count, part.y);
    });
  };
  return {run, 0, overwrites};
}

}  // namespace halftone::cpu

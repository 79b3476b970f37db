#include "halftone/ops/pointwise.hpp"

#include <cstring>

#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/elementwise.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pointwise.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// All of these take the time in which memory moves their numbers: chunks are converted, computed on and stored while
// they are in the first-level cache. The loops tell the compiler that y may be x, but never overlaps it otherwise.
#ifndef HALFTONE_CPU_POINTWISE_ONCE
#define HALFTONE_CPU_POINTWISE_ONCE
namespace halftone::cpu {
using UnaryLoop = void (*)(const Activation&, const float* x, float* y, std::int64_t count);
using BinaryLoop = void (*)(const Activation&, const float* a, const float* b, float* y, std::int64_t count);
}  // namespace halftone::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace halftone::cpu::HWY_NAMESPACE {

template <class F>
void values(const Activation& activation, const float* x, float* y, std::int64_t count) {
  const F f = *std::get_if<F>(&activation);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = f.value(x[i]);
}

/// Where the slope is zero nothing passes, not even an infinite gradient.
template <class F>
void gradients(const Activation& activation, const float* d, const float* seen, float* y, std::int64_t count) {
  const F f = *std::get_if<F>(&activation);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float slope = f.slope(seen[i]);
    y[i] = math::select(slope == 0.0f, 0.0f, d[i] * slope);
  }
}

template <class F>
void sum_values(const Activation& activation, const float* a, const float* b, float* y, std::int64_t count) {
  const F f = *std::get_if<F>(&activation);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = f.value(a[i] + b[i]);
}

UnaryLoop value_loop(const Activation& activation) {
  return std::visit([](auto f) -> UnaryLoop { return values<decltype(f)>; }, activation);
}
BinaryLoop gradient_loop(const Activation& activation) {
  return std::visit([](auto f) -> BinaryLoop { return gradients<decltype(f)>; }, activation);
}
BinaryLoop sum_loop(const Activation& activation) {
  return std::visit([](auto f) -> BinaryLoop { return sum_values<decltype(f)>; }, activation);
}

void sums(const float* a, const float* b, float* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = a[i] + b[i];
}

void products(const float* a, const float* b, float* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = a[i] * b[i];
}

void scaled(const float* x, float factor, float* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = x[i] * factor;
}

void normalized(const float* x, float divisor, const float* mean, const float* stddev, float* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = (x[i] / divisor - mean[i]) / stddev[i];
}

}  // namespace halftone::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace halftone::cpu {

Offer activation(const Request& request) {
  const Activation& activation = request.attributes<Activate>().activation;
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, value_loop(activation));
  return elementwise<1>(request, [=](const Chunk<1>& part) { loop(activation, part.x[0], part.y, part.count); });
}

Offer activation_gradient(const Request& request) {
  const Activation& activation = request.attributes<ActivationGradient>().activation;
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, gradient_loop(activation));
  return elementwise<2>(request,
                        [=](const Chunk<2>& part) { loop(activation, part.x[0], part.x[1], part.y, part.count); });
}

Offer add(const Request& request) {
  const Isa isa = machine_of(request).isa;
  if (const auto& epilogue = request.attributes<Add>().epilogue) {
    const auto loop = HALFTONE_PER_ISA(isa, sum_loop(*epilogue));
    return elementwise<2>(request, [loop, activation = *epilogue](const Chunk<2>& part) {
      loop(activation, part.x[0], part.x[1], part.y, part.count);
    });
  }
  const auto loop = HALFTONE_PER_ISA(isa, sums);
  return elementwise<2>(request, [=](const Chunk<2>& part) { loop(part.x[0], part.x[1], part.y, part.count); });
}

Offer multiply(const Request& request) {
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, products);
  return elementwise<2>(request, [=](const Chunk<2>& part) { loop(part.x[0], part.x[1], part.y, part.count); });
}

Offer scale(const Request& request) {
  const float factor = request.attributes<Scale>().factor;
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, scaled);
  return elementwise<1>(request, [=](const Chunk<1>& part) { loop(part.x[0], factor, part.y, part.count); });
}

Offer cast(const Request& request) {
  const Machine machine = machine_of(request);
  const Reader read(machine, request.inputs[0]);
  const Writer write(machine, request.outputs[0]);
  const std::int64_t elements = request.outputs[0].shape.elements();
  const auto run = [=](const Arguments& arguments) {
    for_chunks(machine.threads, elements, [&](std::int64_t first, std::int64_t count) {
      alignas(64) float buffer[chunk];
      float* place = write.place(arguments.outputs[0], first, buffer);
      write(arguments.outputs[0], first, count, read(arguments.inputs[0], first, count, place));
    });
  };
  return Launch{run, 0, request.inputs[0].dtype == request.outputs[0].dtype ? 0 : -1};
}

Offer normalize(const Request& request) {
  const auto& attributes = request.attributes<Normalize>();
  const std::size_t channels = attributes.mean.size();
  std::vector<float> mean(channels + chunk), stddev(channels + chunk);  // a chunk may begin at any channel
  for (std::size_t i = 0; i < mean.size(); ++i) {
    mean[i] = attributes.mean[i % channels];
    stddev[i] = attributes.stddev[i % channels];
  }
  const float divisor = request.inputs[0].dtype == DType::u8 ? 255.0f : 1.0f;
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, normalized);
  return elementwise<1>(request, [=](const Chunk<1>& part) {
    const std::size_t channel = static_cast<std::size_t>(part.first) % channels;
    loop(part.x[0], divisor, mean.data() + channel, stddev.data() + channel, part.y, part.count);
  });
}

namespace {

/// Copies `run` elements of each row from a tensor with `from_row` elements a row to one with `to_row`.
struct RowCopy {
  ValueSpec from, to;
  std::int64_t from_row, to_row, run, rows;
  std::int64_t from_first, to_first;  ///< of the first row

  std::function<void(const void*, void*)> on(const Machine& machine) const {
    const std::int64_t block = std::max<std::int64_t>(1, chunk_task / run);
    const auto in_blocks = [copy = *this, block, threads = machine.threads](auto&& copy_row) {
      parallel_for(threads, (copy.rows + block - 1) / block, [&](std::int64_t task) {
        for (std::int64_t row = task * block; row < std::min(copy.rows, (task + 1) * block); ++row)
          copy_row(copy.from_first + row * copy.from_row, copy.to_first + row * copy.to_row);
      });
    };
    if (from.dtype == to.dtype) {
      const auto size = static_cast<std::int64_t>(size_of(from.dtype));
      return [in_blocks, size, bytes = static_cast<std::size_t>(run * size)](const void* source, void* target) {
        in_blocks([&](std::int64_t i, std::int64_t j) {
          std::memcpy(static_cast<std::byte*>(target) + j * size, static_cast<const std::byte*>(source) + i * size,
                      bytes);
        });
      };
    }
    return [in_blocks, read = Reader(machine, from), write = Writer(machine, to), run = run](const void* source,
                                                                                             void* target) {
      in_blocks([&](std::int64_t i, std::int64_t j) {
        float buffer[chunk];
        for (std::int64_t done = 0; done < run; done += chunk) {
          const std::int64_t count = std::min(chunk, run - done);
          write(target, j + done, count, read(source, i + done, count, write.place(target, j + done, buffer)));
        }
      });
    };
  }
};

}  // namespace

Offer concat(const Request& request) {
  const Machine machine = machine_of(request);
  const ValueSpec& output = request.outputs[0];
  std::vector<std::function<void(const void*, void*)>> copies;
  std::int64_t first = 0;
  for (const ValueSpec& input : request.inputs) {
    const std::int64_t run = input.shape.c;
    copies.push_back(RowCopy{input, output, run, output.shape.c, run, output.shape.rows(), 0, first}.on(machine));
    first += run;
  }
  return Launch{[copies](const Arguments& arguments) {
    for (std::size_t i = 0; i < copies.size(); ++i) copies[i](arguments.inputs[i], arguments.outputs[0]);
  }};
}

Offer slice(const Request& request) {
  const auto& attributes = request.attributes<Slice>();
  const ValueSpec &input = request.inputs[0], &output = request.outputs[0];
  const std::int64_t run = attributes.count;
  const RowCopy copy{input, output, input.shape.c, run, run, output.shape.rows(), attributes.first, 0};
  return Launch{[copy = copy.on(machine_of(request))](const Arguments& arguments) {
    copy(arguments.inputs[0], arguments.outputs[0]);
  }};
}

}  // namespace halftone::cpu
#endif

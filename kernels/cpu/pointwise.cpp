#include "halftone/ops/pointwise.hpp"

#include <cstring>

#include "kernels/cpu/activation.hpp"
#include "kernels/cpu/elementwise.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pointwise.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// All of these take the time in which memory moves their numbers: chunks are converted, computed on and stored while
// they are in the first-level cache. The loops tell the compiler that y may be x, but never overlaps it otherwise.
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

/// The same where d is the sum of two.
template <class F>
void gradients_of_sums(const Activation& activation, const float* a, const float* b, const float* seen, float* y,
                       std::int64_t count) {
  const F f = *std::get_if<F>(&activation);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float slope = f.slope(seen[i]);
    y[i] = math::select(slope == 0.0f, 0.0f, (a[i] + b[i]) * slope);
  }
}

template <class F>
void sum_values(const Activation& activation, const float* a, const float* b, float* y, std::int64_t count) {
  const F f = *std::get_if<F>(&activation);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = f.value(a[i] + b[i]);
}

ActivationLoop value_loop(const Activation& activation) {
  return std::visit([](auto f) -> ActivationLoop { return values<decltype(f)>; }, activation);
}
BinaryLoop gradient_loop(const Activation& activation) {
  return std::visit([](auto f) -> BinaryLoop { return gradients<decltype(f)>; }, activation);
}
auto gradient_of_sum_loop(const Activation& activation) {
  return std::visit([](auto f) { return &gradients_of_sums<decltype(f)>; }, activation);
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

ActivationLoop activation_loop(Isa isa, const Activation& activation) {
  return HALFTONE_PER_ISA(isa, value_loop(activation));
}

Launch activation(const Request& request) {
  const Activation& activation = request.attributes<Activate>().activation;
  const auto loop = activation_loop(machine_of(request).isa, activation);
  return elementwise<1>(request, [=](const Chunk<1>& part) { loop(activation, part.x[0], part.y, part.count); });
}

Launch activation_gradient(const Request& request) {
  const Activation& activation = request.attributes<ActivationGradient>().activation;
  if (request.inputs.size() == 3) {
    const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, gradient_of_sum_loop(activation));
    return elementwise<3>(
        request, [=](const Chunk<3>& part) { loop(activation, part.x[0], part.x[1], part.x[2], part.y, part.count); });
  }
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, gradient_loop(activation));
  return elementwise<2>(request,
                        [=](const Chunk<2>& part) { loop(activation, part.x[0], part.x[1], part.y, part.count); });
}

Launch add(const Request& request) {
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

Launch multiply(const Request& request) {
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, products);
  return elementwise<2>(request, [=](const Chunk<2>& part) { loop(part.x[0], part.x[1], part.y, part.count); });
}

Launch scale(const Request& request) {
  const float factor = request.attributes<Scale>().factor;
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, scaled);
  return elementwise<1>(request, [=](const Chunk<1>& part) { loop(part.x[0], factor, part.y, part.count); });
}

Launch cast(const Request& request) {
  const Machine machine = machine_of(request);
  const Access read(machine.isa, request.inputs[0]), written(machine.isa, request.outputs[0]);
  const std::int64_t elements = request.outputs[0].shape.elements();
  const Largest largest_of = largest_finder(machine.isa);
  const auto run = [=](const Arguments& arguments) {
    const Input x(read, arguments.inputs[0]);
    const Output y(written, arguments, 0);
    if (written.storage.scaling == Scaling::tensor) {
      std::int32_t bits = 0;  // of magnitudes: NaN's lie behind those of all numbers
      for_chunks(machine.threads, elements, [&](std::int64_t first, std::int64_t count) {
        alignas(64) float buffer[chunk];
        const auto some = bit_cast<std::int32_t>(largest_of(x(first, count, buffer), count));
        std::int32_t seen = __atomic_load_n(&bits, __ATOMIC_RELAXED);
        while (seen < some &&
               !__atomic_compare_exchange_n(&bits, &seen, some, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
      });
      y.settle_scale(bit_cast<float>(bits));
    }
    for_chunks(machine.threads, elements, [&](std::int64_t first, std::int64_t count) {
      alignas(64) float buffer[chunk];
      y(first, count, x(first, count, y.place(first, buffer)));
    });
  };
  const bool same =
      request.inputs[0].storage == request.outputs[0].storage && same_places(request.inputs[0], request.outputs[0]);
  return {run, 0, same ? 0 : -1};
}

Launch normalize(const Request& request) {
  const auto& attributes = request.attributes<Normalize>();
  const std::size_t channels = attributes.mean.size();
  std::vector<float> mean(channels + chunk), stddev(channels + chunk);  // a chunk may begin at any channel
  for (std::size_t i = 0; i < mean.size(); ++i) {
    mean[i] = attributes.mean[i % channels];
    stddev[i] = attributes.stddev[i % channels];
  }
  const float divisor = request.inputs[0].storage == DType::u8 ? 255.0f : 1.0f;
  const auto loop = HALFTONE_PER_ISA(machine_of(request).isa, normalized);
  return elementwise<1>(request, [=](const Chunk<1>& part) {
    const std::size_t channel = static_cast<std::size_t>(part.first) % channels;
    loop(part.x[0], divisor, mean.data() + channel, stddev.data() + channel, part.y, part.count);
  });
}

namespace {

/// Copies `run` elements of each row from a tensor with `from_row` elements a row to one with `to_row`.
struct RowCopy {
  std::int64_t from_row, to_row, run, rows;
  std::int64_t from_first, to_first;  ///< of the first row
  Access from, to;
  int threads;

  void operator()(const Arguments& arguments, std::size_t input) const {
    const bool raw = from.plain && from.storage == to.storage;
    const auto* source = arguments.in<std::byte>(input);
    auto* target = arguments.out<std::byte>(0);
    const Input x(from, arguments.inputs[input]);
    const Output y(to, arguments, 0);
    for_each_row([&](std::int64_t i, std::int64_t j) {
      if (raw) return void(std::memcpy(target + j * to.size, source + i * to.size, to.storage.bytes(run)));
      float buffer[chunk];
      for (std::int64_t done = 0; done < run; done += chunk) {
        const std::int64_t count = std::min(chunk, run - done);
        y(j + done, count, x(i + done, count, y.place(j + done, buffer)));
      }
    });
  }

 private:
  /// Calls f(first element in the one tensor, in the other).
  template <class F>
  void for_each_row(const F& f) const {
    const std::int64_t block = std::max<std::int64_t>(1, chunk_task / run);
    parallel_for(threads, (rows + block - 1) / block, [&](std::int64_t task) {
      for (std::int64_t row = task * block; row < std::min(rows, (task + 1) * block); ++row)
        f(from_first + row * from_row, to_first + row * to_row);
    });
  }
};

}  // namespace

Launch concat(const Request& request) {
  const auto [threads, isa] = machine_of(request);
  const ValueSpec& output = request.outputs[0];
  std::vector<RowCopy> copies;
  std::int64_t first = 0;
  for (const ValueSpec& input : request.inputs) {
    const std::int64_t run = input.shape.c;
    copies.push_back({run, output.shape.c, run, output.shape.rows(), 0, first, {isa, input}, {isa, output}, threads});
    first += run;
  }
  return {[copies](const Arguments& arguments) {
    for (std::size_t i = 0; i < copies.size(); ++i) copies[i](arguments, i);
  }};
}

Launch slice(const Request& request) {
  const auto [threads, isa] = machine_of(request);
  const auto& op = request.attributes<Slice>();
  const ValueSpec &x = request.inputs[0], &y = request.outputs[0];
  const RowCopy copy{x.shape.c, op.count, op.count, y.shape.rows(), op.first, 0, {isa, x}, {isa, y}, threads};
  return {[copy](const Arguments& arguments) { copy(arguments, 0); }};
}

}  // namespace halftone::cpu
#endif

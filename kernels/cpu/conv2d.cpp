#include "halftone/ops/conv2d.hpp"

#include "halftone/ops/dense.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/convolution.hpp"
#include "kernels/cpu/reference_convolution.hpp"

namespace halftone::cpu {
namespace {

ConvProblem problem_of(const ConvAttributes& conv, const Shape& x, const Shape& w, const Shape& y) {
  return {.n = x.n,
          .h = x.h,
          .w = x.w,
          .c = x.c,
          .k = w.n,
          .r = w.h,
          .s = w.w,
          .p = y.h,
          .q = y.w,
          .stride_h = conv.stride.h,
          .stride_w = conv.stride.w,
          .pad_h = conv.padding.h,
          .pad_w = conv.padding.w,
          .dilation_h = conv.dilation.h,
          .dilation_w = conv.dilation.w,
          .groups = conv.groups};
}

/// A dense layer is a 1x1 convolution of 1x1 images.
ConvProblem dense_problem(std::int64_t n, std::int64_t features, std::int64_t units) {
  return {.n = n, .h = 1, .w = 1, .c = features, .k = units, .r = 1, .s = 1, .p = 1, .q = 1};
}

ConvProblem conv2d_problem(const Request& r) {
  return problem_of(r.attributes<Conv2d>().conv, r.inputs[0].shape, r.inputs[1].shape, r.outputs[0].shape);
}
ConvProblem dense_problem(const Request& r) {
  return dense_problem(r.inputs[0].shape.n, r.inputs[1].shape.c, r.inputs[1].shape.n);
}
ConvProblem conv2d_d_input_problem(const Request& r) {
  return problem_of(r.attributes<Conv2dDInput>().conv, r.outputs[0].shape, r.inputs[1].shape, r.inputs[0].shape);
}
ConvProblem dense_d_input_problem(const Request& r) {
  return dense_problem(r.inputs[0].shape.n, r.inputs[1].shape.c, r.inputs[1].shape.n);
}
ConvProblem conv2d_d_weight_problem(const Request& r) {
  return problem_of(r.attributes<Conv2dDWeight>().conv, r.inputs[0].shape, r.outputs[0].shape, r.inputs[1].shape);
}
ConvProblem dense_d_weight_problem(const Request& r) {
  return dense_problem(r.inputs[0].shape.n, r.outputs[0].shape.c, r.outputs[0].shape.n);
}

Operands operands_of(const Request& request) {
  Operands operands{{}, request.outputs[0].tensor()};
  for (const ValueSpec& input : request.inputs) operands.inputs.push_back(input.tensor());
  return operands;
}

/// A launch that owns an engine object.
template <class Engine>
Launch launch(Engine engine) {
  const std::size_t workspace = engine.workspace();
  return {[engine = std::make_shared<const Engine>(std::move(engine))](const Arguments& a) { engine->run(a); },
          workspace};
}

template <class Attributes>
Launch engine_forward(const Request& r, const ConvProblem& problem) {
  const auto [threads, isa] = machine_of(r);
  return launch(ConvForward(problem, operands_of(r), r.attributes<Attributes>().epilogue, isa, threads));
}
template <class Engine>
Launch engine_gradient(const Request& r, const ConvProblem& problem) {
  const auto [threads, isa] = machine_of(r);
  return launch(Engine(problem, operands_of(r), isa, threads));
}
Launch reference(const Request& r, const ConvProblem& problem, Direction direction,
                 const std::optional<Activation>& activation = {}) {
  return {[reference = ReferenceConvolution{problem, direction, operands_of(r), activation}](const Arguments& a) {
    reference.run(a);
  }};
}

}  // namespace

Launch conv2d_implicit_gemm(const Request& r) { return engine_forward<Conv2d>(r, conv2d_problem(r)); }
Launch dense_implicit_gemm(const Request& r) { return engine_forward<Dense>(r, dense_problem(r)); }
Launch conv2d_d_input_implicit_gemm(const Request& r) {
  return engine_gradient<ConvDInput>(r, conv2d_d_input_problem(r));
}
Launch dense_d_input_implicit_gemm(const Request& r) {
  return engine_gradient<ConvDInput>(r, dense_d_input_problem(r));
}
Launch conv2d_d_weight_implicit_gemm(const Request& r) {
  return engine_gradient<ConvDWeight>(r, conv2d_d_weight_problem(r));
}
Launch dense_d_weight_implicit_gemm(const Request& r) {
  return engine_gradient<ConvDWeight>(r, dense_d_weight_problem(r));
}

Launch conv2d_reference(const Request& r) {
  return reference(r, conv2d_problem(r), Direction::forward, r.attributes<Conv2d>().epilogue);
}
Launch dense_reference(const Request& r) {
  return reference(r, dense_problem(r), Direction::forward, r.attributes<Dense>().epilogue);
}
Launch conv2d_d_input_reference(const Request& r) {
  return reference(r, conv2d_d_input_problem(r), Direction::d_input);
}
Launch dense_d_input_reference(const Request& r) { return reference(r, dense_d_input_problem(r), Direction::d_input); }
Launch conv2d_d_weight_reference(const Request& r) {
  return reference(r, conv2d_d_weight_problem(r), Direction::d_weight);
}
Launch dense_d_weight_reference(const Request& r) {
  return reference(r, dense_d_weight_problem(r), Direction::d_weight);
}

}  // namespace halftone::cpu

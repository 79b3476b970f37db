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

struct Forward {
  ConvProblem problem;
  ConvForward::Formats formats;
  std::optional<Activation> activation;
  bool bias;
};

template <class Attributes>
Forward forward_of(const Request& request, const ConvProblem& problem) {
  const bool bias = request.inputs.size() > 2;
  return {problem,
          {request.inputs[0].dtype, request.inputs[1].dtype, bias ? request.inputs[2].dtype : DType::f32,
           request.outputs[0].dtype},
          request.attributes<Attributes>().epilogue,
          bias};
}

Forward conv2d_forward(const Request& r) {
  return forward_of<Conv2d>(
      r, problem_of(r.attributes<Conv2d>().conv, r.inputs[0].shape, r.inputs[1].shape, r.outputs[0].shape));
}
Forward dense_forward(const Request& r) {
  return forward_of<Dense>(r, dense_problem(r.inputs[0].shape.n, r.inputs[1].shape.c, r.inputs[1].shape.n));
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

/// A launch that owns an engine object; `run` takes the tensors in the order of the request.
template <class Engine>
Launch launch(Engine engine) {
  const std::size_t workspace = engine.workspace();
  return {[engine = std::make_shared<const Engine>(std::move(engine))](const Arguments& a) {
            if constexpr (std::is_same_v<Engine, ConvForward>)
              engine->run(a.in(0), a.in(1), a.inputs.size() > 2 ? a.in(2) : nullptr, a.out(0), a.workspace);
            else
              engine->run(a.in(0), a.in(1), a.out(0), a.workspace);
          },
          workspace};
}

Offer engine_forward(const Request& request, const Forward& f) {
  const auto [threads, isa] = machine_of(request);
  return launch(ConvForward(f.problem, f.formats, f.activation, f.bias, isa, threads));
}
Offer engine_d_input(const Request& r, const ConvProblem& problem) {
  const auto [threads, isa] = machine_of(r);
  return launch(ConvDInput(problem, {r.inputs[0].dtype, r.inputs[1].dtype, r.outputs[0].dtype}, isa, threads));
}
Offer engine_d_weight(const Request& r, const ConvProblem& problem) {
  const auto [threads, isa] = machine_of(r);
  return launch(ConvDWeight(problem, {r.inputs[0].dtype, r.inputs[1].dtype, r.outputs[0].dtype}, isa, threads));
}

Offer reference_forward(const Forward& f) {
  const ReferenceForward reference{f.problem,      f.formats.input,  f.formats.weight,
                                   f.formats.bias, f.formats.output, f.activation};
  return Launch{[reference](const Arguments& a) {
    reference.run(a.in(0), a.in(1), a.inputs.size() > 2 ? a.in(2) : nullptr, a.out(0));
  }};
}
template <class Reference>
Offer reference_gradient(const Request& r, const ConvProblem& problem) {
  const Reference reference{problem, r.inputs[0].dtype, r.inputs[1].dtype, r.outputs[0].dtype};
  return Launch{[reference](const Arguments& a) { reference.run(a.in(0), a.in(1), a.out(0)); }};
}

}  // namespace

Offer conv2d_implicit_gemm(const Request& r) { return engine_forward(r, conv2d_forward(r)); }
Offer dense_implicit_gemm(const Request& r) { return engine_forward(r, dense_forward(r)); }
Offer conv2d_d_input_implicit_gemm(const Request& r) { return engine_d_input(r, conv2d_d_input_problem(r)); }
Offer dense_d_input_implicit_gemm(const Request& r) { return engine_d_input(r, dense_d_input_problem(r)); }
Offer conv2d_d_weight_implicit_gemm(const Request& r) { return engine_d_weight(r, conv2d_d_weight_problem(r)); }
Offer dense_d_weight_implicit_gemm(const Request& r) { return engine_d_weight(r, dense_d_weight_problem(r)); }

Offer conv2d_reference(const Request& r) { return reference_forward(conv2d_forward(r)); }
Offer dense_reference(const Request& r) { return reference_forward(dense_forward(r)); }
Offer conv2d_d_input_reference(const Request& r) {
  return reference_gradient<ReferenceDInput>(r, conv2d_d_input_problem(r));
}
Offer dense_d_input_reference(const Request& r) {
  return reference_gradient<ReferenceDInput>(r, dense_d_input_problem(r));
}
Offer conv2d_d_weight_reference(const Request& r) {
  return reference_gradient<ReferenceDWeight>(r, conv2d_d_weight_problem(r));
}
Offer dense_d_weight_reference(const Request& r) {
  return reference_gradient<ReferenceDWeight>(r, dense_d_weight_problem(r));
}

}  // namespace halftone::cpu

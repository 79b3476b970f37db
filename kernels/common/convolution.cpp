#include "kernels/common/convolution.hpp"

#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/spatial.hpp"

namespace halftone {
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

ConvProblem problem_of(std::int64_t n, const Shape& weight) { return {.n = n, .c = weight.c, .k = weight.n}; }

Operands operands_of(const Request& request) {
  return {{request.inputs.begin(), request.inputs.end()}, request.outputs[0]};
}

}  // namespace

template <>
Convolution convolution_of<Conv2d>(const Request& r) {
  const auto& op = r.attributes<Conv2d>();
  return {problem_of(op.conv, r.inputs[0].shape, r.inputs[1].shape, r.outputs[0].shape), Direction::forward,
          operands_of(r), op.epilogue};
}

template <>
Convolution convolution_of<Conv2dDInput>(const Request& r) {
  return {problem_of(r.attributes<Conv2dDInput>().conv, r.outputs[0].shape, r.inputs[1].shape, r.inputs[0].shape),
          Direction::d_input, operands_of(r)};
}

/// Its operands and result have the places of a gradient's.
template <>
Convolution convolution_of<ConvTranspose2d>(const Request& r) {
  return {problem_of(r.attributes<ConvTranspose2d>().conv, r.outputs[0].shape, r.inputs[1].shape, r.inputs[0].shape),
          Direction::d_input, operands_of(r)};
}

template <>
Convolution convolution_of<Conv2dDWeight>(const Request& r) {
  return {problem_of(r.attributes<Conv2dDWeight>().conv, r.inputs[0].shape, r.outputs[0].shape, r.inputs[1].shape),
          Direction::d_weight, operands_of(r)};
}

template <>
Convolution convolution_of<Dense>(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.inputs[1].shape), Direction::forward, operands_of(r),
          r.attributes<Dense>().epilogue};
}

template <>
Convolution convolution_of<DenseDInput>(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.inputs[1].shape), Direction::d_input, operands_of(r)};
}

template <>
Convolution convolution_of<DenseDWeight>(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.outputs[0].shape), Direction::d_weight, operands_of(r)};
}

}  // namespace halftone

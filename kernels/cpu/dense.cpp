#include "halftone/ops/dense.hpp"

#include "kernels/cpu/convolution.hpp"

namespace halftone::cpu {
namespace {

ConvProblem problem_of(std::int64_t n, const Shape& weight) { return {.n = n, .c = weight.c, .k = weight.n}; }

}  // namespace

Convolution dense(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.inputs[1].shape), Direction::forward, operands_of(r),
          r.attributes<Dense>().epilogue};
}

Convolution dense_d_input(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.inputs[1].shape), Direction::d_input, operands_of(r)};
}

Convolution dense_d_weight(const Request& r) {
  return {problem_of(r.inputs[0].shape.n, r.outputs[0].shape), Direction::d_weight, operands_of(r)};
}

}  // namespace halftone::cpu

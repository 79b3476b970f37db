#include "halftone/ops/sum_rows.hpp"

namespace halftone {

std::vector<ValueSpec> SumRows::infer(std::span<const ValueSpec> inputs) const {
  return {{Shape::vector(inputs[0].shape.c), DType::f32, Role::weight_gradient}};
}

}  // namespace halftone

#pragma once
// Not part of halftone.hpp: whoever includes this brings Eigen 3.4.
#include <Eigen/Core>

#include "halftone/tensor/tensor.hpp"

namespace halftone {

using RowMajorMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Maps f32 host data as a matrix [rows = n*h*w, c] without a copy; throws Error for any other storage.
inline Eigen::Map<RowMajorMatrix> as_eigen(const TensorView& view) {
  if (view.spec.storage != DType::f32) fail("as_eigen needs f32 data, not " + to_string(view.spec.storage));
  if (view.backend && view.backend->name() != "cpu") fail("as_eigen needs data on the CPU");
  return {static_cast<float*>(view.data), view.spec.shape.rows(), view.spec.shape.c};
}

}  // namespace halftone

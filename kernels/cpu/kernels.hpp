#pragma once
#include "halftone/graph/kernel.hpp"

// The factories that table.cpp lists, each defined in the file of its operation.
namespace halftone::cpu {

// conv2d.cpp
Offer conv2d_implicit_gemm(const Request&);
Offer conv2d_d_input_implicit_gemm(const Request&);
Offer conv2d_d_weight_implicit_gemm(const Request&);
Offer conv2d_reference(const Request&);
Offer conv2d_d_input_reference(const Request&);
Offer conv2d_d_weight_reference(const Request&);
Offer dense_implicit_gemm(const Request&);
Offer dense_d_input_implicit_gemm(const Request&);
Offer dense_d_weight_implicit_gemm(const Request&);
Offer dense_reference(const Request&);
Offer dense_d_input_reference(const Request&);
Offer dense_d_weight_reference(const Request&);
// pointwise.cpp
Offer activation(const Request&);
Offer activation_gradient(const Request&);
Offer add(const Request&);
Offer multiply(const Request&);
Offer scale(const Request&);
Offer cast(const Request&);
Offer normalize(const Request&);
Offer concat(const Request&);
Offer slice(const Request&);
// random.cpp
Offer dropout(const Request&);
Offer quantize(const Request&);
// pool2d.cpp
Offer max_pool2d(const Request&);
Offer max_pool2d_gradient(const Request&);
Offer avg_pool2d(const Request&);
Offer avg_pool2d_gradient(const Request&);
// sum_rows.cpp, batch_norm.cpp, group_norm.cpp
Offer sum_rows(const Request&);
Offer batch_norm(const Request&);
Offer batch_norm_gradient(const Request&);
Offer batch_norm_inference(const Request&);
Offer update_running_statistics(const Request&);
Offer group_norm(const Request&);
Offer group_norm_gradient(const Request&);
// loss.cpp
Offer softmax_cross_entropy(const Request&);
Offer softmax_cross_entropy_gradient(const Request&);
Offer mean_squared_error(const Request&);
Offer mean_squared_error_gradient(const Request&);
Offer accuracy(const Request&);
// step.cpp
Offer seed_gradient(const Request&);
Offer check_gradients(const Request&);
Offer accumulate_gradients(const Request&);
Offer advance(const Request&);
Offer update(const Request&);
Offer average_weights(const Request&);
Offer finish(const Request&);

}  // namespace halftone::cpu

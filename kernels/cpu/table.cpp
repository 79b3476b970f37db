#include "kernels/cpu/backend.hpp"

// The factories, each defined in the file of its operation.
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

const KernelTable& kernel_table() {
  static const KernelTable table({
      {"conv2d", {{"implicit_gemm", conv2d_implicit_gemm}, {"reference", conv2d_reference}}},
      {"conv2d_d_input", {{"implicit_gemm", conv2d_d_input_implicit_gemm}, {"reference", conv2d_d_input_reference}}},
      {"conv2d_d_weight", {{"implicit_gemm", conv2d_d_weight_implicit_gemm}, {"reference", conv2d_d_weight_reference}}},
      {"dense", {{"implicit_gemm", dense_implicit_gemm}, {"reference", dense_reference}}},
      {"dense_d_input", {{"implicit_gemm", dense_d_input_implicit_gemm}, {"reference", dense_d_input_reference}}},
      {"dense_d_weight", {{"implicit_gemm", dense_d_weight_implicit_gemm}, {"reference", dense_d_weight_reference}}},
      {"sum_rows", {{"rows", sum_rows}}},
      {"activation", {{"flat", activation}}},
      {"activation_gradient", {{"flat", activation_gradient}}},
      {"add", {{"flat", add}}},
      {"multiply", {{"flat", multiply}}},
      {"scale", {{"flat", scale}}},
      {"cast", {{"flat", cast}}},
      {"normalize", {{"rows", normalize}}},
      {"dropout", {{"flat", dropout}}},
      {"quantize", {{"flat", quantize}}},
      {"concat", {{"rows", concat}}},
      {"slice", {{"rows", slice}}},
      {"max_pool2d", {{"windows", max_pool2d}}},
      {"max_pool2d_gradient", {{"windows", max_pool2d_gradient}}},
      {"avg_pool2d", {{"windows", avg_pool2d}}},
      {"avg_pool2d_gradient", {{"windows", avg_pool2d_gradient}}},
      {"batch_norm", {{"two_pass", batch_norm}}},
      {"batch_norm_gradient", {{"two_pass", batch_norm_gradient}}},
      {"batch_norm_inference", {{"rows", batch_norm_inference}}},
      {"update_running_statistics", {{"plain", update_running_statistics}}},
      {"group_norm", {{"samples", group_norm}}},
      {"group_norm_gradient", {{"samples", group_norm_gradient}}},
      {"softmax_cross_entropy", {{"rows", softmax_cross_entropy}}},
      {"softmax_cross_entropy_gradient", {{"rows", softmax_cross_entropy_gradient}}},
      {"mean_squared_error", {{"flat", mean_squared_error}}},
      {"mean_squared_error_gradient", {{"flat", mean_squared_error_gradient}}},
      {"accuracy", {{"rows", accuracy}}},
      {"seed_gradient", {{"plain", seed_gradient}}},
      {"check_gradients", {{"flat", check_gradients}}},
      {"accumulate_gradients", {{"flat", accumulate_gradients}}},
      {"advance", {{"plain", advance}}},
      {"update", {{"flat", update}}},
      {"average_weights", {{"flat", average_weights}}},
      {"finish", {{"plain", finish}}},
  });
  return table;
}

}  // namespace halftone::cpu

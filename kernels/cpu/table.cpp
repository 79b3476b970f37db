#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/kernels.hpp"

namespace halftone::cpu {

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

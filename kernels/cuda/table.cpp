#include "kernels/cuda/table.hpp"

#include "halftone/graph/step_ops.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/quantize.hpp"
#include "halftone/ops/softmax.hpp"
#include "halftone/ops/spatial.hpp"
#include "halftone/ops/sum_rows.hpp"
#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/cublas.hpp"
#include "kernels/cuda/cudnn.hpp"
#include "kernels/cuda/known.hpp"
#include "kernels/cuda/library.hpp"

namespace halftone::cuda {

#if !defined(HALFTONE_HAS_CUDNN)
std::string decline_cudnn(const Convolution&, Driver&, bool) { return "this build has no cuDNN"; }
Launch make_cudnn(const Convolution&, Driver&, bool) { return {}; }
#endif
#if !defined(HALFTONE_HAS_CUBLAS)
std::string decline_cublas(const Convolution&, Driver&) { return "this build has no cuBLAS"; }
Launch make_cublas(const Convolution&, Driver&) { return {}; }
#endif

namespace {

/// A kernel that knows the storages that all do.
std::vector<Kernel> list(const char* name, Launch (*make)(const Request&)) {
  return {{name, make, nullptr, is_compiled, is_known}};
}

/// What is asked of a library: all, or in f32, which bears to be stored in between, products where it does not do the
/// rest.
Convolution part_of_library(Convolution convolution) {
  if (convolution.operands.output.storage == DType::f32 && !decline_storages(convolution).empty()) {
    convolution.operands.inputs.resize(2);
    convolution.activation.reset();
  }
  return convolution;
}

/// Then does what the library did not.
Launch completed(Launch launch, const Convolution& part, const Convolution& whole) {
  if (part.operands.inputs.size() == whole.operands.inputs.size() &&
      part.activation.has_value() == whole.activation.has_value())
    return launch;
  launch.run = [product = std::move(launch.run), finish = add_bias(whole)](const Arguments& a) {
    Arguments of_product = a;
    of_product.inputs = a.inputs.first(2);
    product(of_product);
    finish(a);
  };
  return launch;
}

Convolution as_cudnn_likes(const Convolution& convolution) {
  return wants_padded_channels(convolution) ? padded_channels(convolution) : convolution;
}

template <class Operation, bool on_tensor_cores>
Kernel by_cudnn(const char* name) {
  return {name,
          [](const Request& request) {
            const Convolution whole = convolution_of<Operation>(request), part = part_of_library(whole);
            Launch launch = make_cudnn(as_cudnn_likes(part), driver_of(request), on_tensor_cores);
            if (wants_padded_channels(part)) launch = with_padded_channels(std::move(launch), part);
            return completed(std::move(launch), part, whole);
          },
          [](const Request& request) {
            return decline_cudnn(as_cudnn_likes(part_of_library(convolution_of<Operation>(request))),
                                 driver_of(request), on_tensor_cores);
          },
          unpacked_storage, is_known};
}

template <class Operation, bool on_tensor_cores>
Kernel by_cublas(const char* name) {
  return {name,
          [](const Request& request) {
            const Convolution whole = convolution_of<Operation>(request), part = part_of_library(whole);
            return completed(make_cublas(part, driver_of(request)), part, whole);
          },
          [](const Request& request) -> std::string {
            const Convolution part = part_of_library(convolution_of<Operation>(request));
            if (on_tensor_cores == (part.operands.output.storage == DType::f32))
              return on_tensor_cores ? "f32 is not multiplied on tensor cores"
                                     : "16 bits are multiplied on tensor cores";
            return decline_cublas(part, driver_of(request));
          },
          unpacked_storage, is_known};
}

/// The ways to do a convolution operation.
template <class Operation>
std::vector<Kernel> convolutions() {
  return {by_cudnn<Operation, true>("cudnn_tensor_cores"),
          by_cublas<Operation, true>("cublas_tensor_cores"),
          {"tensor_cores", [](const Request& request) { return tensor_cores(convolution_of<Operation>(request)); },
           [](const Request& request) { return decline_tensor_cores(convolution_of<Operation>(request)); }, is_compiled,
           is_known},
          by_cudnn<Operation, false>("cudnn"),
          by_cublas<Operation, false>("cublas"),
          {"plain", [](const Request& request) { return plain(convolution_of<Operation>(request)); },
           [](const Request& request) { return decline_plain(convolution_of<Operation>(request)); }, is_compiled,
           is_known}};
}

/// Dense layers, which are products of matrices already: cuBLAS before cuDNN.
template <class Operation>
std::vector<Kernel> products() {
  std::vector<Kernel> kernels = convolutions<Operation>();
  std::swap(kernels[0], kernels[1]);
  std::swap(kernels[3], kernels[4]);
  return kernels;
}

}  // namespace

const KernelTable& kernel_table() {
  using Table = KernelTable;
  static const Table table({
      Table::list<Conv2d>("conv2d", convolutions<Conv2d>()),
      Table::list<Conv2dDInput>("conv2d_d_input", convolutions<Conv2dDInput>()),
      Table::list<Conv2dDWeight>("conv2d_d_weight", convolutions<Conv2dDWeight>()),
      Table::list<ConvTranspose2d>("conv_transpose2d", convolutions<ConvTranspose2d>()),
      Table::list<Dense>("dense", products<Dense>()),
      Table::list<DenseDInput>("dense_d_input", products<DenseDInput>()),
      Table::list<DenseDWeight>("dense_d_weight", products<DenseDWeight>()),
      Table::list<SumRows>("sum_rows", list("columns", sum_rows)),
      Table::list<Activate>("activation", list("flat", activation)),
      Table::list<ActivationGradient>("activation_gradient", list("flat", activation_gradient)),
      Table::list<Add>("add", list("flat", add)),
      Table::list<Multiply>("multiply", list("flat", multiply)),
      Table::list<Scale>("scale", list("flat", scale)),
      Table::list<Cast>("cast", {{"flat", cast, decline_cast, any_storage}}),
      Table::list<Normalize>("normalize", list("flat", normalize)),
      Table::list<Dropout>("dropout", list("flat", dropout)),
      Table::list<Quantize>("quantize", list("flat", quantize)),
      Table::list<Concat>("concat", list("rows", concat)),
      Table::list<Slice>("slice", list("rows", slice)),
      Table::list<MaxPool2d>("max_pool2d", list("windows", max_pool2d)),
      Table::list<MaxPool2dGradient>("max_pool2d_gradient", list("windows", max_pool2d_gradient)),
      Table::list<AvgPool2d>("avg_pool2d", list("windows", avg_pool2d)),
      Table::list<AvgPool2dGradient>("avg_pool2d_gradient", list("windows", avg_pool2d_gradient)),
      Table::list<Pad2d>("pad2d", list("flat", pad2d)),
      Table::list<Upsample2d>("upsample2d", list("flat", upsample2d)),
      Table::list<Upsample2dGradient>("upsample2d_gradient", list("flat", upsample2d_gradient)),
      Table::list<ScaleChannels>("scale_channels", list("flat", scale_channels)),
      Table::list<ScaleChannelsGradient>("scale_channels_gradient", list("flat", scale_channels_gradient)),
      Table::list<AddChannels>("add_channels", list("flat", add_channels)),
      Table::list<BatchNorm>("batch_norm", list("columns", batch_norm)),
      Table::list<BatchNormGradient>("batch_norm_gradient", list("columns", batch_norm_gradient)),
      Table::list<BatchNormInference>("batch_norm_inference", list("columns", batch_norm_inference)),
      Table::list<BatchNormInferenceGradient>("batch_norm_inference_gradient",
                                              list("columns", batch_norm_inference_gradient)),
      Table::list<UpdateRunningStatistics>("update_running_statistics", {{"plain", update_running_statistics}}),
      Table::list<GroupNorm>("group_norm", list("samples", group_norm)),
      Table::list<GroupNormGradient>("group_norm_gradient", list("samples", group_norm_gradient)),
      Table::list<Softmax>("softmax", list("rows", softmax)),
      Table::list<SoftmaxGradient>("softmax_gradient", list("rows", softmax_gradient)),
      Table::list<SoftmaxCrossEntropy>("softmax_cross_entropy", list("rows", softmax_cross_entropy)),
      Table::list<SoftmaxCrossEntropyGradient>("softmax_cross_entropy_gradient",
                                               list("rows", softmax_cross_entropy_gradient)),
      Table::list<MeanSquaredError>("mean_squared_error", list("flat", mean_squared_error)),
      Table::list<MeanSquaredErrorGradient>("mean_squared_error_gradient", list("flat", mean_squared_error_gradient)),
      Table::list<BinaryCrossEntropy>("binary_cross_entropy", list("flat", binary_cross_entropy)),
      Table::list<BinaryCrossEntropyGradient>("binary_cross_entropy_gradient",
                                              list("flat", binary_cross_entropy_gradient)),
      Table::list<Accuracy>("accuracy", list("rows", accuracy)),
      Table::list<SeedGradient>("seed_gradient", list("plain", seed_gradient)),
      Table::list<BeginMicroBatch>("begin_micro_batch", {{"plain", begin_micro_batch}}),
      Table::list<CheckGradients>("check_gradients", {{"chunks", check_gradients}}),
      Table::list<AccumulateGradients>("accumulate_gradients", {{"chunks", accumulate_gradients}}),
      Table::list<Advance>("advance", {{"plain", advance}}),
      Table::list<MoveRanges>("move_ranges", {{"plain", move_ranges}}),
      Table::list<Update>("update", {{"chunks", update, decline_update, any_runs}}),
      Table::list<SettleRanges>("settle_ranges", {{"plain", settle_ranges}}),
      Table::list<KeepStatistics>("keep_statistics", {{"chunks", keep_statistics}}),
      Table::list<AverageWeights>("average_weights", {{"chunks", average_weights}}),
      Table::list<Lookahead>("lookahead", {{"chunks", lookahead, decline_update, any_runs}}),
      Table::list<Finish>("finish", {{"plain", finish}}),
  });
  return table;
}

}  // namespace halftone::cuda

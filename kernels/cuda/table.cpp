#include "kernels/cuda/table.hpp"

#include "halftone/graph/step_ops.hpp"
#include "halftone/ops/conv2d.hpp"
#include "halftone/ops/dense.hpp"
#include "halftone/ops/loss.hpp"
#include "halftone/ops/norm.hpp"
#include "halftone/ops/pointwise.hpp"
#include "halftone/ops/pool2d.hpp"
#include "halftone/ops/quantize.hpp"
#include "halftone/ops/sum_rows.hpp"
#include "kernels/cuda/backend.hpp"
#include "kernels/cuda/cudnn.hpp"
#include "kernels/cuda/staging.hpp"

namespace halftone::cuda {
namespace {

constexpr bool packs = true;

/// A kernel behind the casts that other storages need.
template <Launch (*make)(const Request&)>
std::vector<Kernel> list(const char* name) {
  return {{name, staged<make>, decline_staging, packs}};
}

template <class Operation>
Launch plain_convolution(const Request& request) {
  return plain(convolution_of<Operation>(request));
}

#if defined(HALFTONE_HAS_CUDNN)
/// cuDNN rounds what it stores, and a bias and an activation come behind that: only f32 bears it.
std::string decline_cudnn(const Convolution& convolution, const Request& request, bool on_tensor_cores) {
  const bool finished = convolution.operands.inputs.size() > 2 || convolution.activation;
  if (finished && convolution.operands.output.storage != DType::f32)
    return "bias and activation would be rounded twice";
  return decline_cudnn(convolution, driver_of(request), on_tensor_cores);
}

Launch by_cudnn(const Convolution& convolution, const Request& request) {
  Launch launch = make_cudnn(convolution, driver_of(request));
  if (convolution.operands.inputs.size() < 3 && !convolution.activation) return launch;
  launch.run = [product = std::move(launch.run), finish = add_bias(convolution)](const Arguments& a) {
    product(a);
    finish(a);
  };
  return launch;
}
#else
std::string decline_cudnn(const Convolution&, const Request&, bool) { return "this build has no cuDNN"; }
Launch by_cudnn(const Convolution&, const Request&) { return {}; }
#endif

/// The ways to do a convolution operation.
template <class Operation>
std::vector<Kernel> convolutions() {
  const auto cudnn = [](const Request& request) { return by_cudnn(convolution_of<Operation>(request), request); };
  return {{"cudnn_tensor_cores", cudnn,
           [](const Request& request) { return decline_cudnn(convolution_of<Operation>(request), request, true); }},
          {"tensor_cores", [](const Request& request) { return tensor_cores(convolution_of<Operation>(request)); },
           [](const Request& request) {
             for (const ValueSpec& output : request.outputs)
               if (!is_compiled(output.storage)) return std::string("its result is stored in another way");
             return decline_tensor_cores(convolution_of<Operation>(request));
           }},
          {"cudnn", cudnn,
           [](const Request& request) { return decline_cudnn(convolution_of<Operation>(request), request, false); }},
          {"plain", staged<plain_convolution<Operation>>,
           [](const Request& request) {
             const std::string why = decline_staging(request);
             return why.empty() ? decline_plain(convolution_of<Operation>(request)) : why;
           },
           packs}};
}

}  // namespace

const KernelTable& kernel_table() {
  using Table = KernelTable;
  static const Table table({
      Table::list<Conv2d>("conv2d", convolutions<Conv2d>()),
      Table::list<Conv2dDInput>("conv2d_d_input", convolutions<Conv2dDInput>()),
      Table::list<Conv2dDWeight>("conv2d_d_weight", convolutions<Conv2dDWeight>()),
      Table::list<Dense>("dense", convolutions<Dense>()),
      Table::list<DenseDInput>("dense_d_input", convolutions<DenseDInput>()),
      Table::list<DenseDWeight>("dense_d_weight", convolutions<DenseDWeight>()),
      Table::list<SumRows>("sum_rows", list<sum_rows>("columns")),
      Table::list<Activate>("activation", list<activation>("flat")),
      Table::list<ActivationGradient>("activation_gradient", list<activation_gradient>("flat")),
      Table::list<Add>("add", list<add>("flat")),
      Table::list<Multiply>("multiply", list<multiply>("flat")),
      Table::list<Scale>("scale", list<scale>("flat")),
      Table::list<Cast>("cast", {{"flat", cast, decline_cast, packs}}),
      Table::list<Normalize>("normalize", list<normalize>("flat")),
      Table::list<Dropout>("dropout", list<dropout>("flat")),
      Table::list<Quantize>("quantize", list<quantize>("flat")),
      Table::list<Concat>("concat", list<concat>("rows")),
      Table::list<Slice>("slice", list<slice>("rows")),
      Table::list<MaxPool2d>("max_pool2d", list<max_pool2d>("windows")),
      Table::list<MaxPool2dGradient>("max_pool2d_gradient", list<max_pool2d_gradient>("windows")),
      Table::list<AvgPool2d>("avg_pool2d", list<avg_pool2d>("windows")),
      Table::list<AvgPool2dGradient>("avg_pool2d_gradient", list<avg_pool2d_gradient>("windows")),
      Table::list<BatchNorm>("batch_norm", list<batch_norm>("columns")),
      Table::list<BatchNormGradient>("batch_norm_gradient", list<batch_norm_gradient>("columns")),
      Table::list<BatchNormInference>("batch_norm_inference", list<batch_norm_inference>("columns")),
      Table::list<UpdateRunningStatistics>("update_running_statistics", {{"plain", update_running_statistics}}),
      Table::list<GroupNorm>("group_norm", list<group_norm>("samples")),
      Table::list<GroupNormGradient>("group_norm_gradient", list<group_norm_gradient>("samples")),
      Table::list<SoftmaxCrossEntropy>("softmax_cross_entropy", list<softmax_cross_entropy>("rows")),
      Table::list<SoftmaxCrossEntropyGradient>("softmax_cross_entropy_gradient",
                                               list<softmax_cross_entropy_gradient>("rows")),
      Table::list<MeanSquaredError>("mean_squared_error", list<mean_squared_error>("flat")),
      Table::list<MeanSquaredErrorGradient>("mean_squared_error_gradient", list<mean_squared_error_gradient>("flat")),
      Table::list<Accuracy>("accuracy", list<accuracy>("rows")),
      Table::list<SeedGradient>("seed_gradient", list<seed_gradient>("plain")),
      Table::list<BeginMicroBatch>("begin_micro_batch", {{"plain", begin_micro_batch}}),
      Table::list<CheckGradients>("check_gradients", {{"chunks", check_gradients}}),
      Table::list<AccumulateGradients>("accumulate_gradients", {{"chunks", accumulate_gradients}}),
      Table::list<Advance>("advance", {{"plain", advance}}),
      Table::list<MoveRanges>("move_ranges", {{"plain", move_ranges}}),
      Table::list<Update>("update", {{"chunks", update, decline_update, packs}}),
      Table::list<SettleRanges>("settle_ranges", {{"plain", settle_ranges}}),
      Table::list<KeepStatistics>("keep_statistics", {{"chunks", keep_statistics}}),
      Table::list<AverageWeights>("average_weights", {{"chunks", average_weights}}),
      Table::list<Finish>("finish", {{"plain", finish}}),
  });
  return table;
}

}  // namespace halftone::cuda

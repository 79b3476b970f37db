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
#include "kernels/cpu/backend.hpp"
#include "kernels/cpu/convolution.hpp"

// The factories, each defined in the file of its operation.
namespace halftone::cpu {

// pointwise.cpp
Launch activation(const Request&);
Launch activation_gradient(const Request&);
Launch add(const Request&);
Launch multiply(const Request&);
Launch scale(const Request&);
Launch cast(const Request&);
Launch normalize(const Request&);
Launch concat(const Request&);
Launch slice(const Request&);
// random.cpp
Launch dropout(const Request&);
Launch quantize(const Request&);
// pool2d.cpp
Launch max_pool2d(const Request&);
std::string no_whole_rows(const Request&);
Launch max_pool2d_gradient(const Request&);
Launch avg_pool2d(const Request&);
Launch avg_pool2d_gradient(const Request&);
// spatial.cpp
Launch pad2d(const Request&);
Launch upsample2d(const Request&);
Launch upsample2d_gradient(const Request&);
Launch scale_channels(const Request&);
Launch scale_channels_gradient(const Request&);
Launch add_channels(const Request&);
// sum_rows.cpp, batch_norm.cpp, group_norm.cpp
Launch sum_rows(const Request&);
Launch batch_norm(const Request&);
Launch batch_norm_gradient(const Request&);
Launch batch_norm_inference(const Request&);
Launch batch_norm_inference_gradient(const Request&);
Launch update_running_statistics(const Request&);
Launch group_norm(const Request&);
Launch group_norm_gradient(const Request&);
// loss.cpp
Launch softmax(const Request&);
Launch softmax_gradient(const Request&);
Launch softmax_cross_entropy(const Request&);
Launch softmax_cross_entropy_gradient(const Request&);
Launch mean_squared_error(const Request&);
Launch mean_squared_error_gradient(const Request&);
Launch binary_cross_entropy(const Request&);
Launch binary_cross_entropy_gradient(const Request&);
Launch accuracy(const Request&);
// step.cpp
Launch seed_gradient(const Request&);
Launch begin_micro_batch(const Request&);
Launch check_gradients(const Request&);
Launch accumulate_gradients(const Request&);
Launch advance(const Request&);
Launch move_ranges(const Request&);
Launch settle_ranges(const Request&);
Launch update(const Request&);
Launch keep_statistics(const Request&);
Launch average_weights(const Request&);
Launch lookahead(const Request&);
Launch finish(const Request&);
// fold_signs.cpp
void fold_signs(Graph& graph, const Device& device, std::span<const int> keep);

namespace {

KernelTable make_table() {
  using Table = KernelTable;
  constexpr Takes packs = any_runs;
  Table::Lists lists = {
      Table::list<Conv2d>("conv2d", convolution_kernels<Conv2d>()),
      Table::list<Conv2dDInput>("conv2d_d_input", convolution_kernels<Conv2dDInput>()),
      Table::list<Conv2dDWeight>("conv2d_d_weight", convolution_kernels<Conv2dDWeight>()),
      Table::list<ConvTranspose2d>("conv_transpose2d", convolution_kernels<ConvTranspose2d>()),
      Table::list<Dense>("dense", convolution_kernels<Dense>()),
      Table::list<DenseDInput>("dense_d_input", convolution_kernels<DenseDInput>()),
      Table::list<DenseDWeight>("dense_d_weight", convolution_kernels<DenseDWeight>()),
      Table::list<SumRows>("sum_rows", {{"rows", sum_rows}}),
      Table::list<Activate>("activation", {{"flat", activation, nullptr, packs}}),
      Table::list<ActivationGradient>("activation_gradient", {{"flat", activation_gradient, nullptr, packs}}),
      Table::list<Add>("add", {{"flat", add, nullptr, packs}}),
      Table::list<Multiply>("multiply", {{"flat", multiply, nullptr, packs}}),
      Table::list<Scale>("scale", {{"flat", scale, nullptr, packs}}),
      Table::list<Cast>("cast", {{"flat", cast, nullptr, any_storage}}),
      Table::list<Normalize>("normalize", {{"rows", normalize, nullptr, packs}}),
      Table::list<Dropout>("dropout", {{"flat", dropout, nullptr, packs}}),
      Table::list<Quantize>("quantize", {{"flat", quantize, nullptr, packs}}),
      Table::list<Concat>("concat", {{"rows", concat}}),
      Table::list<Slice>("slice", {{"rows", slice}}),
      Table::list<MaxPool2d>("max_pool2d",
                             {{"windows", max_pool2d, no_whole_rows, packs}, {"windows_in_f32", max_pool2d}}),
      Table::list<MaxPool2dGradient>("max_pool2d_gradient", {{"windows", max_pool2d_gradient}}),
      Table::list<AvgPool2d>("avg_pool2d", {{"windows", avg_pool2d}}),
      Table::list<AvgPool2dGradient>("avg_pool2d_gradient", {{"windows", avg_pool2d_gradient}}),
      Table::list<Pad2d>("pad2d", {{"rows", pad2d}}),
      Table::list<Upsample2d>("upsample2d", {{"rows", upsample2d}}),
      Table::list<Upsample2dGradient>("upsample2d_gradient", {{"rows", upsample2d_gradient}}),
      Table::list<ScaleChannels>("scale_channels", {{"rows", scale_channels}}),
      Table::list<ScaleChannelsGradient>("scale_channels_gradient", {{"images", scale_channels_gradient}}),
      Table::list<AddChannels>("add_channels", {{"rows", add_channels}}),
      Table::list<BatchNorm>("batch_norm", {{"two_pass", batch_norm}}),
      Table::list<BatchNormGradient>("batch_norm_gradient", {{"two_pass", batch_norm_gradient}}),
      Table::list<BatchNormInference>("batch_norm_inference", {{"rows", batch_norm_inference}}),
      Table::list<BatchNormInferenceGradient>("batch_norm_inference_gradient",
                                              {{"rows", batch_norm_inference_gradient}}),
      Table::list<UpdateRunningStatistics>("update_running_statistics", {{"plain", update_running_statistics}}),
      Table::list<GroupNorm>("group_norm", {{"samples", group_norm}}),
      Table::list<GroupNormGradient>("group_norm_gradient", {{"samples", group_norm_gradient}}),
      Table::list<Softmax>("softmax", {{"rows", softmax}}),
      Table::list<SoftmaxGradient>("softmax_gradient", {{"rows", softmax_gradient}}),
      Table::list<SoftmaxCrossEntropy>("softmax_cross_entropy", {{"rows", softmax_cross_entropy}}),
      Table::list<SoftmaxCrossEntropyGradient>("softmax_cross_entropy_gradient",
                                               {{"rows", softmax_cross_entropy_gradient}}),
      Table::list<MeanSquaredError>("mean_squared_error", {{"flat", mean_squared_error}}),
      Table::list<MeanSquaredErrorGradient>("mean_squared_error_gradient", {{"flat", mean_squared_error_gradient}}),
      Table::list<BinaryCrossEntropy>("binary_cross_entropy", {{"flat", binary_cross_entropy}}),
      Table::list<BinaryCrossEntropyGradient>("binary_cross_entropy_gradient",
                                              {{"flat", binary_cross_entropy_gradient}}),
      Table::list<Accuracy>("accuracy", {{"rows", accuracy}}),
      Table::list<SeedGradient>("seed_gradient", {{"plain", seed_gradient}}),
      Table::list<BeginMicroBatch>("begin_micro_batch", {{"plain", begin_micro_batch}}),
      Table::list<CheckGradients>("check_gradients", {{"flat", check_gradients}}),
      Table::list<AccumulateGradients>("accumulate_gradients", {{"flat", accumulate_gradients}}),
      Table::list<Advance>("advance", {{"plain", advance}}),
      Table::list<MoveRanges>("move_ranges", {{"plain", move_ranges}}),
      Table::list<Update>("update", {{"flat", update, nullptr, packs}}),
      Table::list<SettleRanges>("settle_ranges", {{"plain", settle_ranges}}),
      Table::list<KeepStatistics>("keep_statistics", {{"flat", keep_statistics}}),
      Table::list<AverageWeights>("average_weights", {{"flat", average_weights}}),
      Table::list<Lookahead>("lookahead", {{"flat", lookahead, nullptr, packs}}),
      Table::list<Finish>("finish", {{"plain", finish}}),
  };
  return Table(std::move(lists), {fold_signs});
}

}  // namespace

const KernelTable& kernel_table() {
  static const KernelTable table = make_table();
  return table;
}

}  // namespace halftone::cpu

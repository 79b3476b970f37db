#pragma once
#include <string>

#include "kernels/common/convolution.hpp"

// The factories, each defined in the file of its operation; `decline_x` says what x does not take.
namespace halftone::cuda {

// tensor_cores.cu, plain_convolution.cu
Launch tensor_cores(const Convolution&);
std::string decline_tensor_cores(const Convolution&);
Launch plain(const Convolution&);
std::string decline_plain(const Convolution&);
std::function<void(const Arguments&)> add_bias(const Convolution&);  ///< then the activation, to a result in f32
// pad_channels.cu
bool wants_padded_channels(const Convolution&);
Convolution padded_channels(Convolution);                        ///< the same with zeros in further channels
Launch with_padded_channels(Launch, const Convolution& narrow);  ///< by a launch that does the padded one
// pointwise.cu
Launch activation(const Request&);
Launch activation_gradient(const Request&);
Launch add(const Request&);
Launch multiply(const Request&);
Launch scale(const Request&);
Launch known_cast(const Request&);
Launch normalize(const Request&);
Launch concat(const Request&);
Launch slice(const Request&);
Launch dropout(const Request&);
Launch quantize(const Request&);
// cast.cu
Launch cast(const Request&);
std::string decline_cast(const Request&);
// pool2d.cu
Launch max_pool2d(const Request&);
Launch max_pool2d_gradient(const Request&);
Launch avg_pool2d(const Request&);
Launch avg_pool2d_gradient(const Request&);
// spatial.cu
Launch pad2d(const Request&);
Launch upsample2d(const Request&);
Launch upsample2d_gradient(const Request&);
Launch scale_channels(const Request&);
Launch scale_channels_gradient(const Request&);
Launch add_channels(const Request&);
// sum_rows.cu, batch_norm.cu, group_norm.cu
Launch sum_rows(const Request&);
Launch batch_norm(const Request&);
Launch batch_norm_gradient(const Request&);
Launch batch_norm_inference(const Request&);
Launch batch_norm_inference_gradient(const Request&);
Launch update_running_statistics(const Request&);
Launch group_norm(const Request&);
Launch group_norm_gradient(const Request&);
// loss.cu
Launch softmax(const Request&);
Launch softmax_gradient(const Request&);
Launch softmax_cross_entropy(const Request&);
Launch softmax_cross_entropy_gradient(const Request&);
Launch mean_squared_error(const Request&);
Launch mean_squared_error_gradient(const Request&);
Launch binary_cross_entropy(const Request&);
Launch binary_cross_entropy_gradient(const Request&);
Launch accuracy(const Request&);
// step.cu
Launch seed_gradient(const Request&);
Launch begin_micro_batch(const Request&);
Launch check_gradients(const Request&);
Launch accumulate_gradients(const Request&);
Launch advance(const Request&);
Launch move_ranges(const Request&);
Launch settle_ranges(const Request&);
Launch keep_statistics(const Request&);
Launch finish(const Request&);
// update.cu
Launch update(const Request&);
std::string decline_update(const Request&);
Launch average_weights(const Request&);
Launch lookahead(const Request&);

}  // namespace halftone::cuda

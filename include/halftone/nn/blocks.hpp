#pragma once
#include <optional>

#include "halftone/graph/graph.hpp"

namespace halftone {

/// Batch norm of a convolution without bias; the padding keeps the extent where the stride is 1.
Value conv_norm(Value x, int channels, int kernel, int stride = 1, std::optional<Initializer> weight_init = {});

/// Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes. He et al. 2015.
Value basic_block(Value x, int channels, int stride = 1);

/// 1x1, 3x3 (which has the stride) and 1x1 convolution to 4 x `channels`, beside a shortcut; weights start as in
/// torchvision (normal, variance 2 / fan out).
Value bottleneck_block(Value x, int channels, int stride = 1);

}  // namespace halftone

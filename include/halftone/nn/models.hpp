#pragma once
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "halftone/graph/graph.hpp"

namespace halftone {

// Each net takes images [n, h, w, c] and returns logits [n, 1, 1, classes]. The counts of parameters hold for the image
// named and the default number of classes.

/// Two convolutions and three dense layers with relu (after LeCun et al. 1998). 28x28x1: 61,706 parameters.
Value lenet5(Value images, int classes = 10);

/// The net of Gupta et al. 2015. 28x28x1: 37,610 parameters.
Value gupta(Value images, int classes = 10);

/// 784-512-512-512-10 with relu. 28x28x1: 932,362 parameters.
Value mlp(Value images, int classes = 10);

/// Three stages of 16, 32 and 64 channels (He et al. 2015) with projection shortcuts. 32x32x3: 272,474 parameters.
Value resnet20(Value images, int classes = 10);

/// With a 3x3 stem for small images. 32x32x3: 11,173,962 parameters.
Value resnet18(Value images, int classes = 10);

/// Three groups of two 3x3 convolutions with batch norm and gelu behind a whitening one, `whitening`, whose filters are
/// frozen: `whiten` gives them their numbers (Jordan 2024). 32x32x3: 1,972,792 parameters.
Value airbench94(Value images, int classes = 10);

/// With the stride on the 3x3 convolutions, as in torchvision. 224x224x3: 25,557,032 parameters.
Value resnet50(Value images, int classes = 1000);

/// A net that the program can build.
struct Net {
  std::string name;
  Shape image;  ///< [1, h, w, c], what it was made for; most nets take other images too
  int classes;
  std::function<Value(Value images, int classes)> build;
  std::string graph = {};     ///< of a file: all that a checkpoint must keep of it, as text
  std::string checksum = {};  ///< of a file: of the graph and all numbers
  std::string note = {};      ///< what its user should know
  /// Of a file that normalises its images itself, one for all channels or one each; none else. `of_bytes`: of x / 255.
  std::vector<float> mean = {}, stddev = {};
  bool of_bytes = false;
};

std::span<const Net> nets();

/// Throws Error that lists the names.
const Net& net_by_name(std::string_view name);

/// Parameters in numbers, not tensors.
std::int64_t parameter_count(const Graph& graph);
std::int64_t parameter_count(const Net& net);

}  // namespace halftone

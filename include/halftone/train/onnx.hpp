#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "halftone/graph/parameters.hpp"
#include "halftone/nn/models.hpp"
#include "halftone/train/load_model.hpp"

namespace halftone {

/// Whether the library was built with libonnx.
bool has_onnx();

/// A convolutional net from an ONNX file, of any opset from 7 on whose operations mean what they did by 17: one input
/// of images [n, c, h, w], one output of logits [n, classes]. `build` takes images [n, h, w, c] and adds the net with
/// the file's numbers as trainable parameters under the file's names; where batch norm was folded into convolutions
/// when it was exported there is none. `image` and `classes` are 0 as far as the file does not fix them. Data outside
/// the file are read from its folder alone. Throws FileError naming file and node for the first operation that the
/// library lacks and for what is damaged; Error where libonnx is not compiled in.
Net read_onnx(const std::filesystem::path& file);

/// The same net again from `Net::graph`, without the file's numbers: all are 0 until they are loaded. `name` stands for
/// the file in messages.
Net onnx_net(const std::string& name, std::string_view graph);

/// Writes what computes `output` in evaluation as an ONNX file of opset 17, in f32, with the numbers that `parameters`
/// hold (the averaged ones where there are such). Images and activations are [n, c, h, w] with any n, images of the
/// input's own dtype. Throws Error naming the first node that has no counterpart, or where libonnx is not compiled in.
void write_onnx(const std::filesystem::path& file, Value output, const Parameters& parameters);

/// The same for the logits of a checkpoint's net, which take images as they come from its data set.
void export_onnx(const std::filesystem::path& checkpoint, const std::filesystem::path& file,
                 ModelWeights weights = ModelWeights::best);

/// A net by its name or, where that ends in .onnx, of that file.
Net find_net(const std::string& name);

}  // namespace halftone

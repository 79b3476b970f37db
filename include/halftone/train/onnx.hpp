#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "halftone/data/dataset.hpp"
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
/// the file are read from its folder alone. With `new_head` the last layer with weights begins anew, for as many
/// classes as `build` is told. Throws FileError naming file and node for the first operation that the library lacks and
/// for what is damaged; Error where libonnx is not compiled in.
Net read_onnx(const std::filesystem::path& file, bool new_head = false);

/// The same net again from `Net::graph`, without the file's numbers: all are 0 until they are loaded. `name` stands for
/// the file in messages. It tells apart as many classes as `build` is told.
Net onnx_net(const std::string& name, std::string_view graph);

/// Gives a data set the mean and deviation with which a net's file normalises its own images, which is done once: by
/// `inputs`. Nothing changes where the file has none. Throws Error for another number of channels.
void normalize_as(const Net& net, Dataset& data);

/// What a checkpoint's metadata say of a net that no program knows: `net`, its name, and `graph`, from which
/// `read_model_description` and `Predictor` build it again. Throws Error as `write_onnx`.
std::map<std::string, std::string> describe(const std::string& name, Value logits);

/// Writes what computes `output` in evaluation as an ONNX file of opset 17, in f32, with the numbers that `parameters`
/// hold (the averaged ones where there are such). Images and activations are [n, c, h, w] with any n, images of the
/// input's own dtype; a shift-based batch norm's factors are its scale. Throws Error naming the first node that has no
/// counterpart, or where libonnx is not compiled in.
void write_onnx(const std::filesystem::path& file, Value output, const Parameters& parameters);

/// The same for the logits of a checkpoint's net, which take images as they come from its data set.
void export_onnx(const std::filesystem::path& checkpoint, const std::filesystem::path& file,
                 ModelWeights weights = ModelWeights::best);

/// A net by its name or, where that ends in .onnx, of that file (`read_onnx`).
Net find_net(const std::string& name, bool new_head = false);

}  // namespace halftone

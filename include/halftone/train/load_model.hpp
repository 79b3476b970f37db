#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "halftone/graph/parameters.hpp"

namespace halftone {

enum class ModelWeights { best, raw };  ///< raw: those that were trained, where the best ones are averaged

/// The order of a convolution weight's axes in a file: [k, r, s, c], which is ours, or [k, c, r, s], which is
/// PyTorch's.
enum class Layout { krsc, kcrs };

/// The order in which the columns of a dense layer's weight take an image: ours is h, w, c, that of PyTorch's
/// `nn.Flatten` c, h, w.
enum class FlattenOrder { hwc, chw };

/// How to read a model's file.
struct LoadOptions {
  ModelWeights weights = ModelWeights::best;
  /// Both are needed where a tensor's order depends on them and the file's metadata do not say it (`layout` krsc or
  /// kcrs, `flatten` hwc or chw; Halftone's own files do).
  std::optional<Layout> layout = {};
  std::optional<FlattenOrder> flatten = {};
  /// What the file calls a parameter or statistic of ours, by default the same.
  std::function<std::string(const std::string& name)> name = {};
  std::vector<std::string> scopes = {};    ///< only what lies in one of these (`in_scope`); none: everything
  std::vector<std::string> left_out = {};  ///< but for what lies in one of these
};

/// What a load left alone.
struct LoadReport {
  std::vector<std::string> kept;    ///< parameters and statistics of ours outside `scopes` or `left_out`
  std::vector<std::string> unread;  ///< tensors of the file
};

/// Reads parameters and statistics from a .safetensors file, a checkpoint's model or another program's, into memory;
/// f16, bf16 and 8-bit floats widen exactly, and signs of `save_packed` are numbers again. All tensors of four axes
/// follow `layout`, the weights of dense layers that take more than a pixel `flatten`. Nothing is written before all
/// has been checked: throws FileError naming file and tensor for one that is missing, of another shape, of no float
/// that f32 holds, or not finite, and, without `scopes` and `left_out`, for a float tensor that the net has no place
/// for (integers, as the counters of batch norm, are listed as unread); throws Error where an order is not known or not
/// the file's, for a scope that holds nothing, and for two names that are one.
LoadReport load_model(const std::filesystem::path& file, Parameters& parameters, const LoadOptions& options = {});

/// The same into the numbers that a graph's parameters and statistics begin with, whatever the seed. Throws as
/// `load_model`.
LoadReport start_from(const std::filesystem::path& file, Graph graph, const LoadOptions& options = {});

/// The parameters of the last layer before `logits`: what to leave out (`LoadOptions::left_out`) where a net is to tell
/// other classes apart. Throws Error where there is none.
std::vector<std::string> head_of(const Value& logits);

}  // namespace halftone

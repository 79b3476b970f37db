#pragma once
#include <onnx/onnx_pb.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// What an ONNX file holds, before any of it means anything here.
namespace halftone {

/// Reads a file and the numbers that lie in files beside it. Throws FileError naming what is damaged.
onnx::ModelProto read_model(const std::filesystem::path& file);

/// Of a model's graph and all numbers: "5e1f09aa".
std::string checksum_of(const onnx::ModelProto& model);

/// The model as JSON, without the numbers of its weights and what is said for people.
std::string hollow(const onnx::ModelProto& model);

/// The model of such a text; nothing where it is none.
std::optional<onnx::ModelProto> model_of_hollow(std::string_view text);

/// The product of a tensor's extents, -1 where these are none.
std::int64_t elements_of(const onnx::TensorProto& tensor);

/// The numbers of a small tensor of integers.
std::optional<std::vector<std::int64_t>> integers_of(const onnx::TensorProto& tensor);

/// The numbers of a tensor of floats: none where it is no such tensor, and too few where it has not the bytes of its
/// shape.
std::optional<std::vector<float>> floats_of(const onnx::TensorProto& tensor);

}  // namespace halftone

#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "halftone/graph/parameters.hpp"
#include "halftone/train/options.hpp"

namespace halftone {

using Metadata = std::map<std::string, std::string>;

/// What the metadata say of `key`, or nothing.
std::string text_at(const Metadata& metadata, const std::string& key);

/// What a checkpoint says of its training: names and what they stand for, the weightiest first.
struct Identity {
  using Facts = std::vector<std::pair<std::string, std::string>>;
  Facts fixed = {};       ///< a resume must agree with these
  Facts changeable = {};  ///< a resume tells which of these differ
};

/// What a training's options are to one that continues it.
Identity identity_of(const TrainerOptions& options);

/// Writes DIR/model.safetensors, which holds what using the net takes (parameters, averaged where an average is kept,
/// and statistics, f32; `model` and the version as metadata), and DIR/state.safetensors, which holds all that a resume
/// takes, weights included, as it is stored, and `identity`. Each file is complete in itself and replaced whole or not
/// at all; the folder is made where it is missing. Neither holds times, paths or thread counts, so equal training gives
/// equal bytes. Throws FileError naming what cannot be written.
///
/// A folder belongs to one training at a time: whoever cannot rule out others holds its FolderLock (`halftone train`
/// does). Readers need none, and after a crash at any moment the files are the last ones or the ones before.
void save_checkpoint(const std::filesystem::path& directory, const Parameters& parameters, const Metadata& model,
                     const Identity& identity);

/// Writes DIR/model.safetensors alone, as save_checkpoint does.
void save_model(const std::filesystem::path& directory, const Parameters& parameters, const Metadata& model);

/// Writes a model as one file for use alone: as DIR/model.safetensors, but weights that memory holds as signs are signs
/// there too, a bit each (u8 tensors of eight a byte, low bits first). `load_model` reads it. Throws as
/// save_checkpoint, and Error for parameters that have averages (`export_packed` takes those).
void save_packed(const std::filesystem::path& file, const Parameters& parameters, const Metadata& model);

/// The file of a checkpoint's model: `checkpoint` itself where it is a file, else model.safetensors in it.
std::filesystem::path model_file(const std::filesystem::path& checkpoint);

/// Reads DIR/state.safetensors, checks it whole, then writes all of it into memory. Throws FileError naming file,
/// tensor or field, and Error naming the first difference from `identity.fixed`. Returns the differences from
/// `identity.changeable`, each in words. A scale that `loss_scale` never comes to is damage too.
std::vector<std::string> load_checkpoint(const std::filesystem::path& directory, Parameters& parameters,
                                         const Identity& identity, const LossScale& loss_scale = {});

/// Metadata of a checkpoint's model (`model_file`); throws FileError where there is none.
Metadata read_model_metadata(const std::filesystem::path& checkpoint);
/// The same of its state: the facts of its `Identity` among them.
Metadata read_state_metadata(const std::filesystem::path& directory);

}  // namespace halftone

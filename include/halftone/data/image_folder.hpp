#pragma once
#include "halftone/data/dataset.hpp"

namespace halftone {

/// Reads the .png, .jpg and .jpeg files of a folder that holds a folder a class, at any depth: `DIR/train/CLASS/...`
/// and `DIR/test/CLASS/...` (or `val`), or `DIR/CLASS/...`, which `options.validation` splits by each file's path, so
/// that another file moves at most one of its class. What is hidden is left out. All are brought to `options.image`, as
/// by `read_image`. They come in turn from each class, in the order of their names, so that a limit takes as many from
/// each. With `options.without_labels`, images in a DIR without folders have none. Throws FileError naming the folder
/// that lacks something or whose name is not UTF-8, and how many files are no sound images and the first of them,
/// unless `options.skip_broken`; Error for options that do not fit.
Dataset read_image_folder(const std::filesystem::path& dir, Split split, const DataOptions& options);

}  // namespace halftone

#pragma once
#include "halftone/data/dataset.hpp"

namespace halftone {

/// Reads a NumPy archive (`numpy.savez`, `savez_compressed`) that holds x_train, y_train, x_test and y_test, or x and
/// y, which `options.validation` splits. Images are u8 or f32 of [n, h, w] or, in `options.layout`, four axes; a layout
/// that is not said follows from `options.image` if that fits one only. Labels are integers of [n] or [n, 1]; with
/// `options.without_labels` there may be x alone. Throws FileError naming file and array that are damaged or of another
/// kind, Error for options that do not fit.
Dataset read_npz(const std::filesystem::path& file, Split split, const DataOptions& options);

}  // namespace halftone

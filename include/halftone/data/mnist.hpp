#pragma once
#include "halftone/data/dataset.hpp"

namespace halftone {

/// Reads the idx files of MNIST or Fashion-MNIST, `train-images-idx3-ubyte` or `train-images.idx3-ubyte` and so on,
/// gzipped (name ends in .gz) or plain, from the folder `dir`.
/// `limit` as in load_dataset. Throws FileError naming the file that is absent or damaged.
Dataset read_mnist(const std::filesystem::path& dir, Split split, std::int64_t limit = 0);
Dataset read_fashion_mnist(const std::filesystem::path& dir, Split split, std::int64_t limit = 0);

}  // namespace halftone

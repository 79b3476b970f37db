#pragma once
#include "halftone/data/dataset.hpp"

namespace halftone {

/// Reads the idx files of MNIST, Fashion-MNIST or KMNIST, `train-images-idx3-ubyte` or `train-images.idx3-ubyte` and so
/// on, gzipped (name ends in .gz) or plain, from the folder `dir`. `limit` as in load_dataset. Throws FileError naming
/// the file that is absent or damaged.
Dataset read_mnist(const std::filesystem::path& dir, Split split, std::int64_t limit = 0);
Dataset read_fashion_mnist(const std::filesystem::path& dir, Split split, std::int64_t limit = 0);
Dataset read_kmnist(const std::filesystem::path& dir, Split split, std::int64_t limit = 0);

/// The same for a set of EMNIST: `emnist-letters-train-images-idx3-ubyte` and so on, where `set` is emnist-balanced,
/// -bymerge, -byclass, -letters, -digits or -mnist. These files hold images with rows and columns exchanged, which is
/// undone; the labels of emnist-letters, 1 to 26, become 0 to 25.
Dataset read_emnist(std::string_view set, const std::filesystem::path& dir, Split split, std::int64_t limit = 0);

}  // namespace halftone

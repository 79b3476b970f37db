#pragma once
#include "halftone/data/dataset.hpp"

namespace halftone {

/// Reads the binary version of CIFAR-10 (data_batch_1.bin ... data_batch_5.bin, test_batch.bin) from the folder `dir`
/// into NHWC. `limit` as in load_dataset. Throws FileError naming the file that is absent or damaged.
Dataset read_cifar10(const std::filesystem::path& dir, Split split, std::int64_t limit = 0);

/// The same for CIFAR-100 (train.bin, test.bin) and its 100 fine classes.
Dataset read_cifar100(const std::filesystem::path& dir, Split split, std::int64_t limit = 0);

}  // namespace halftone

#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "halftone/data/dataset.hpp"

namespace halftone {

/// Where a download of `name` goes if nothing else is asked for.
std::filesystem::path download_folder(std::string_view name);

/// How many of the `have` images a caller gets who asks for `limit`. Throws Error if there are not that many.
std::int64_t images_to_take(std::string_view name, std::int64_t have, std::int64_t limit);

/// Sets mean and deviation of data whose training set has these pixels.
void measure(Dataset& data, std::span<const std::byte> training_pixels);

/// Settles what share of own data is held out (`validation`), and whether they are `whole`. Throws Error that begins
/// with `lacking`, what they have not, where a share is needed.
void hold_out(Dataset& data, const DataOptions& options, bool test_part, std::string_view lacking);

/// The same of data without labels, which cannot be split by class. Throws Error that begins with `lacking` where that
/// is asked for.
void take_whole(Dataset& data, const DataOptions& options, std::string_view lacking);

/// The images of `split`, in their order, where `share` of each class is held out for testing: by chance, but the same
/// ones each time, and of two or more at least one in either split. Chance goes by `keys`, one an image; where there
/// are none, by the images' places. Throws Error for a share outside (0, 1), and where no class has two.
std::vector<std::size_t> part_of(std::span<const std::int32_t> labels, double share, Split split,
                                 std::span<const std::uint32_t> keys = {});

/// Only the images `taken`, which are in order.
void keep(Dataset& data, std::span<const std::size_t> taken);

/// Only the first images_to_take.
void truncate(Dataset& data, std::int64_t limit);

/// The file in `dir` that holds `kind` ("images" or "labels") in `dimensions` dimensions by one of its usual names,
/// gzipped or plain; where there is none, the name that it is published by. Those of a set of EMNIST begin with `set`.
std::filesystem::path idx_file(const std::filesystem::path& dir, Split split, std::string_view kind, int dimensions,
                               std::string_view set = {});

}  // namespace halftone

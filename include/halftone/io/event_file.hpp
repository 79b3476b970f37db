#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

namespace halftone {

/// A scalar of an event file, called as TensorBoard groups it: "train/loss".
struct EventScalar {
  std::string tag;
  float value;
};

/// Writes scalars as TensorBoard reads them: a file of its own in `folder`, which is made where it is missing, each
/// record there as soon as it was added. Throws FileError naming what cannot be written.
class EventFile {
 public:
  /// `first_step`: what older files in the folder hold of this step and later ones counts no more.
  explicit EventFile(const std::filesystem::path& folder, std::int64_t first_step = 0);

  void add(std::int64_t step, std::span<const EventScalar> scalars);

  const std::filesystem::path& file() const { return file_; }

 private:
  void write(const std::string& event);
  std::filesystem::path file_;
  std::ofstream stream_;
};

}  // namespace halftone

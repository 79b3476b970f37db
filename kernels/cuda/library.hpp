#pragma once
#include <string>

#include "halftone/tensor/error.hpp"
#include "kernels/common/convolution.hpp"

// What the ways into NVIDIA's libraries share, which are opened when they are first asked for.
namespace halftone::cuda {

inline constexpr std::size_t workspace_alignment = 256;  // bytes

/// The variable of that name, null where it is empty too.
const char* environment(const char* name);

/// A shared library, opened for good: from the loader's path or else from a toolkit's folders.
class LibraryFile {
 public:
  /// `needed`, as "cuDNN 9.8 or newer", is for messages.
  LibraryFile(std::string name, const std::string& needed);

  /// Sets `function` to the library's of that name, null where it has none.
  template <class F>
  void find(F& function, const char* function_name) {
    function = reinterpret_cast<F>(find(function_name));
  }

  /// "is version 9.7.0"
  void refuse(const std::string& why);

  /// What is wrong first; empty where the library can be used.
  const std::string& why_not() const { return why_not_; }

 private:
  void* find(const char* function_name);

  std::string name_, needed_, why_not_;
  void* file_ = nullptr;
};

/// The address in a launch's workspace that begins at a multiple of `workspace_alignment`.
void* aligned(void* workspace);

/// Begins what goes wrong in f with what was being done.
template <class F>
auto doing(const std::string& what, F&& f) {
  try {
    return f();
  } catch (const Failure& failure) {
    throw Failure(what + ": " + failure.what());
  }
}

/// "forward f16 x 128x32x32x64, weight 64x3x3x64, y 128x32x32x64, stride 1x1, ...": all that a way to do it depends on.
std::string description_of(const Convolution& convolution);

/// Why no library is asked about a convolution with its bias and activation; empty where one is.
std::string decline_storages(const Convolution& convolution);

}  // namespace halftone::cuda

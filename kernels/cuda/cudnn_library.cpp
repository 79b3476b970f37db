#include "kernels/cuda/cudnn_library.hpp"

#include <fmt/format.h>

namespace halftone::cuda {

namespace {

constexpr std::size_t oldest_version = 90800;  // plans for a device that need not be there

std::string text_of_version(std::size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Library open_cudnn() {
  Library library;
  LibraryFile file("libcudnn.so.9", "cuDNN 9.8 or newer");
  file.find(library.version, "cudnnGetVersion");
  if (library.version && library.version() < oldest_version)
    file.refuse("is version " + text_of_version(library.version()));
  file.find(library.error, "cudnnGetErrorString");
  file.find(library.last_error, "cudnnGetLastErrorString");
  file.find(library.create_handle, "cudnnCreate");
  file.find(library.destroy_handle, "cudnnDestroy");
  file.find(library.set_stream, "cudnnSetStream");
  file.find(library.create, "cudnnBackendCreateDescriptor");
  file.find(library.destroy, "cudnnBackendDestroyDescriptor");
  file.find(library.finalize, "cudnnBackendFinalize");
  file.find(library.set, "cudnnBackendSetAttribute");
  file.find(library.get, "cudnnBackendGetAttribute");
  file.find(library.execute, "cudnnBackendExecute");
  library.why_not = file.why_not();
  return library;
}

const Library& opened() {
  static const Library library = open_cudnn();  // for good: its threads and kernels outlive every handle
  return library;
}

}  // namespace

const Library& cudnn() {
  const Library& library = opened();
  if (!library.why_not.empty()) throw Failure(library.why_not);
  return library;
}

void check(cudnnStatus_t status, const std::string& doing) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char text[2048] = {};
  cudnn().last_error(text, sizeof text);
  std::string reason(text);
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  throw Failure(fmt::format("cuDNN: {}: {} {}", doing, cudnn().error(status), reason));
}

void Descriptor::checked(cudnnStatus_t status, const char* doing, int attribute) const {
  if (status == CUDNN_STATUS_SUCCESS) return;
  check(status, attribute < 0 ? fmt::format("{} {}", doing, name_)
                              : fmt::format("{} attribute {} of {}", doing, attribute, name_));
}

std::string why_no_cudnn() { return opened().why_not; }

std::string cudnn_version() { return text_of_version(cudnn().version()); }

}  // namespace halftone::cuda

#include "halftone/tensor/error.hpp"
#include "kernels/cuda/backend.hpp"

// The backend of a build without device code.
namespace halftone::cuda {

std::shared_ptr<Backend> make_backend(int) { throw Failure("device cuda: " + why_no_device()); }
int device_count() { return 0; }
std::string why_no_device() { return "this build of Halftone has no CUDA backend"; }
std::string built_for() { return {}; }

}  // namespace halftone::cuda

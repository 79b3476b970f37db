#include "kernels/cuda/library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <variant>

namespace halftone::cuda {
namespace {

const char* name_of(Direction direction) {
  return direction == Direction::forward ? "forward" : direction == Direction::d_input ? "d_input" : "d_weight";
}

}  // namespace

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

LibraryFile::LibraryFile(std::string name, const std::string& needed)
    : name_(std::move(name)), needed_(needed + " is needed: ") {
  if ((file_ = ::dlopen(name_.c_str(), RTLD_NOW | RTLD_LOCAL))) return;
  const std::string reason = ::dlerror();
  std::set<std::string> roots = {"/usr/local/cuda"};
  for (const char* name_of_root : {"CUDA_PATH", "CUDA_HOME"})
    if (const char* root = environment(name_of_root)) roots.insert(root);
  for (const std::string& root : roots)
    for (const char* folder : {"lib64", "lib", "targets/x86_64-linux/lib"})
      if ((file_ = ::dlopen((std::filesystem::path(root) / folder / name_).c_str(), RTLD_NOW | RTLD_LOCAL))) return;
  why_not_ = fmt::format("{}{}; nor has {} one", needed_, reason, fmt::join(roots, " or "));
}

void LibraryFile::refuse(const std::string& why) {
  if (why_not_.empty()) why_not_ = fmt::format("{}{} {}", needed_, name_, why);
}

void* LibraryFile::find(const char* function_name) {
  void* function = file_ ? ::dlsym(file_, function_name) : nullptr;
  if (!function) refuse(fmt::format("has no function {}", function_name));
  return function;
}

void* aligned(void* workspace) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(workspace) + workspace_alignment - 1;
  return reinterpret_cast<void*>(address / workspace_alignment * workspace_alignment);
}

std::string description_of(const Convolution& convolution) {
  const ConvProblem& p = convolution.problem;
  const auto& inputs = convolution.operands.inputs;
  return fmt::format(
      "{} {} x {}x{}x{}x{}, weight {}x{}x{}x{}, y {}x{}x{}x{}, stride {}x{}, padding {}x{}, dilation {}x{}, groups "
      "{}{}{}",
      name_of(convolution.direction), name_of(convolution.operands.output.storage.code), p.n, p.h, p.w, p.c, p.k, p.r,
      p.s, p.c / p.groups, p.n, p.p, p.q, p.k, p.stride_h, p.stride_w, p.pad_h, p.pad_w, p.dilation_h, p.dilation_w,
      p.groups, inputs.size() > 2 ? fmt::format(", bias {}", name_of(inputs[2].storage.code)) : "",
      convolution.activation ? fmt::format(", {}", name_of(*convolution.activation)) : "");
}

std::string decline_storages(const Convolution& convolution) {
  const Operands& operands = convolution.operands;
  const Storage& storage = operands.output.storage;
  if (!storage.plain() || (storage.code != DType::f32 && storage.code != DType::f16 && storage.code != DType::bf16))
    return "a storage other than f32, f16 and bf16";
  if (operands.inputs.at(0).storage != storage || operands.inputs.at(1).storage != storage)
    return "tensors in different storages";
  if (operands.inputs.size() > 2 && operands.inputs[2].storage != storage) return "a bias in another storage";
  if (convolution.activation && !std::holds_alternative<Relu>(*convolution.activation))
    return "an activation other than relu";
  return {};
}

}  // namespace halftone::cuda

#pragma once
#include "halftone/numeric/storage.hpp"

namespace halftone::cuda {

/// The storages that all kernels write.
inline bool is_compiled(const Storage& storage) { return storage.plain() && storage.code <= DType::bf16; }
/// The storages that all kernels read.
inline bool is_known(const Storage& storage) {
  return is_compiled(storage) || (storage.plain() && (storage.code == DType::u8 || storage.code == DType::i32));
}

}  // namespace halftone::cuda

#pragma once
#include "halftone/graph/kernel.hpp"

namespace halftone::cuda {

/// The storages that all kernels write.
inline bool is_compiled(const Storage& storage) { return storage.plain() && storage.code <= DType::bf16; }
/// The storages that all kernels read.
inline bool is_known(const Storage& storage) {
  return is_compiled(storage) || (storage.plain() && (storage.code == DType::u8 || storage.code == DType::i32));
}

/// The launch of a factory whose kernels know no others: every value that is stored otherwise becomes f32 in the
/// workspace before it, or is made of f32 there behind it.
Launch stage(const Request& request, Launch (*factory)(const Request&));

template <Launch (*factory)(const Request&)>
Launch staged(const Request& request) {
  return stage(request, factory);
}

/// Why a value of a request cannot be staged; empty where all can.
std::string decline_staging(const Request& request);

}  // namespace halftone::cuda

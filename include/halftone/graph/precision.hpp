#pragma once
#include <string>
#include <vector>

#include "halftone/graph/graph.hpp"
#include "halftone/numeric/loss_scale.hpp"

namespace halftone {

/// The storage format of each role. Arithmetic is f32 throughout; a result is rounded once, when it is stored.
struct RoleFormats {
  DType activations = DType::f32;
  DType activation_gradients = DType::f32;
  DType weights = DType::f32;  ///< the working copy; where it is not f32, f32 masters are kept beside
  DType weight_gradients = DType::f32;

  static RoleFormats all(DType dtype) { return {dtype, dtype, dtype, dtype}; }
  DType of(Role role, DType otherwise) const;
};

/// A number system for training: formats by role, exceptions by scope, and how the loss is scaled.
struct Precision {
  std::string name = "f32";
  RoleFormats formats = {};
  LossScale loss_scale = LossScale::none();
  struct Exception {
    std::string scope;  ///< every node and parameter in it (`in_scope`)
    RoleFormats formats;
  };
  std::vector<Exception> exceptions = {};  ///< the first that fits counts

  static Precision f32();
  static Precision f16();   ///< f16 storage, f32 masters, dynamic loss scale
  static Precision bf16();  ///< bf16 storage, f32 masters, no loss scale
  Precision except(std::string scope, RoleFormats formats) const;

  const RoleFormats& at(const std::string& name) const;
};

/// A preset by its name; throws Error that lists the names.
Precision precision_by_name(const std::string& name);

/// Gives every value the storage format of its role; values of the roles `input` and `exact` keep theirs.
void narrow(Graph& graph, const Precision& precision);

}  // namespace halftone

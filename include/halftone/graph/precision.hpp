#pragma once
#include <string>
#include <vector>

#include "halftone/graph/graph.hpp"
#include "halftone/numeric/loss_scale.hpp"

namespace halftone {

/// How the numbers of each role are stored. Arithmetic is f32 throughout; a result is rounded once, when it is stored.
struct RoleStorage {
  Storage activations = {}, activation_gradients = {};
  Storage weights = {};  ///< what nodes work with
  Storage weight_gradients = {};
  Storage update = {};  ///< what an update reads and writes: masters are kept beside weights that are stored otherwise
  Storage optimizer_slots = {};  ///< what the optimizer keeps
  bool compensated =
      false;  ///< what rounding took from an update is kept, stored as `optimizer_slots`, for the next (Kahan 1965)

  /// The four roles of a graph's values alike; update and slots are f32.
  static RoleStorage all(const Storage& storage) { return {storage, storage, storage, storage}; }
  /// All alike: no number is kept wider.
  static RoleStorage pure(const Storage& storage) { return {storage, storage, storage, storage, storage, storage}; }
  Storage of(Role role, const Storage& otherwise) const;
};

/// What options and errors call each of a `RoleStorage`'s storages.
inline constexpr std::pair<const char*, Storage RoleStorage::*> role_names[] = {
    {"activations", &RoleStorage::activations}, {"activation_gradients", &RoleStorage::activation_gradients},
    {"weights", &RoleStorage::weights},         {"weight_gradients", &RoleStorage::weight_gradients},
    {"update", &RoleStorage::update},           {"slots", &RoleStorage::optimizer_slots}};

/// A number system for training: storages by role, exceptions by scope, and how the loss is scaled.
struct Precision {
  std::string name = "f32";
  RoleStorage storage = {};
  LossScale loss_scale = LossScale::none();
  struct Exception {
    std::string scope;  ///< every node and parameter in it (`in_scope`)
    RoleStorage storage;
  };
  std::vector<Exception> exceptions = {};  ///< the first that fits counts
  std::int64_t range_steps = 0;  ///< of a first training, in words of 24 bits, of which only the ranges are kept
  bool binarizes = false;        ///< the net becomes a binary one first (`binarize` in train/binarize.hpp)
  bool shift_norms = false;      ///< and its batch norms are shift-based (`NormOptions::shift_based`)
  bool fuses = true;  ///< an activation may join the operation before it; the number between is not rounded then

  static Precision f32();
  static Precision f16();   ///< f16 storage, f32 masters, dynamic loss scale
  static Precision bf16();  ///< bf16 storage, f32 masters, no loss scale

  enum class Update { nearest, stochastic, kahan };
  static Precision bf16_pure(Update update = Update::nearest);  ///< bf16 storage and updates (Zamirai et al. 2020)
  static Precision f16_pure(Update update = Update::nearest);   ///< the same in f16, dynamic loss scale

  /// Weights, activations, gradients, updates and slots in fixed point of at most 32 bits (Gupta et al. 2015; 16.16 is
  /// DaDianNao, Chen et al. 2014). Throws Error for other widths.
  static Precision fixed(int integer_bits, int fraction_bits, Rounding rounding);

  /// Words of `bits`, the sign among them, with one scale a tensor, which follows the rate of overflow; what an update
  /// reads and writes has `update_bits` (Courbariaux, Bengio & David 2014). Throws Error for less than 2 or more
  /// than 24.
  static Precision dynamic_fixed(int bits, int update_bits);
  /// Words of `bits` whose range is 2^5 for all tensors, at least 6 and at most 32.
  static Precision static_fixed(int bits);

  /// current: by the largest number of the tensor itself; delayed: by those of the last steps.
  enum class Fp8Scaling { current, delayed, none };
  /// e4m3 for weights and activations, e5m2 for gradients, f32 masters, a scale a tensor (Micikevicius et al. 2022).
  /// The scale of a weight always follows the update before.
  static Precision fp8(Fp8Scaling scaling = Fp8Scaling::current);

  /// Integers of `bits`, 2 to 8, with a power of two a tensor, for weights, activations and their gradients; masters
  /// and weight gradients are f32.
  static Precision integer(int bits);
  /// Blocks of 32 numbers, e4m3, e3m2 or e2m1, in memory order with a power of two each (OCP Microscaling), for the
  /// same roles. Throws Error for other codes.
  static Precision mx(DType code);
  /// e2m1 in blocks of 16 with an e4m3 scale each, in units of a power of two a tensor, for the same roles; gradients
  /// of activations round stochastically (NVIDIA's NVFP4).
  static Precision nvfp4();

  /// Weights and inputs of all convolutions and dense layers but the first and the last are signs, all else is f32
  /// (Courbariaux et al. 2016). With `shift_norms` batch norms multiply by powers of two, as in its algorithm 3.
  static Precision binary(bool shift_norms = false);

  /// In words of 24 bits where integers have ranges that move, and these ten times as fast: finds ranges.
  Precision wide() const;

  /// Whoever writes a tensor of any role counts what it sees (`NumericsReport::tensors`). The numbers stay the same,
  /// but on CUDA another kernel may compute them, by sums in another order.
  Precision noticing() const;

  Precision except(std::string scope, RoleStorage storage) const;

  const RoleStorage& at(const std::string& name) const;
};

/// A preset by its name, such as "f16" or "fixed:6.10:stochastic", and what others are taken for: "+update=f32" for a
/// role (`role_names`), "+conv1=bf16" for all roles in a scope; the loss scale stays the first one's. Throws Error that
/// lists the names.
Precision precision_by_name(const std::string& name);

/// "f32, f16, ...": what `precision_by_name` takes.
std::string precision_names();

/// Gives every value the storage of its role; values of the roles `input` and `exact` keep theirs.
void narrow(Graph& graph, const Precision& precision);

}  // namespace halftone

#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "halftone/data/loader.hpp"
#include "halftone/inspect/watcher.hpp"
#include "halftone/train/verdict.hpp"

namespace halftone {

/// The loss scales, powers of two, with which f16 holds all gradients that were seen: `highest` leaves two bits to the
/// largest number; below `lowest`, the numbers of some tensor lose more than 2^-6 of it, root mean square, to the
/// smallest step of f16. Empty where lowest > highest.
struct SafeScales {
  double lowest = 0, highest = 0;
};

/// How the gradients and the update of a number system compare with those of f32 from the same weights on the same
/// batch, over all steps that were tried; each layer's parameter counts alike.
struct Fidelity {
  double arrives = 1;     ///< of the gradient's length in its own direction
  double systematic = 0;  ///< error that different batches share, beside a factor, relative to the gradient
  double random = 0;      ///< error that they do not share, as a share of the gradient's energy
  double retained = 1;    ///< of the update, after all that is stored was rounded, by magnitude
  double nonfinite = 0;   ///< share of steps
};

/// What is foretold of one number system.
struct Prognosis {
  Precision precision;
  std::string loss_scale;  ///< as the program spells it: "none", "dynamic", "1024"
  Verdict verdict = Verdict::risky;
  std::string reason, advice;  ///< a sentence each
  Fidelity fidelity;
  /// Of a rehearsal's last third, held against f32 on the same batches: `loss` is a multiple of its mean loss,
  /// `progress` a share of what its loss has fallen from the first step's, NaN where that is next to nothing. None
  /// where the fidelity alone told.
  struct Rehearsal {
    double loss, progress;
  };
  std::optional<Rehearsal> rehearsal = {};
};

struct DoctorOptions {
  TrainerOptions trainer = {};          ///< its precision says nothing
  int steps = 300;                      ///< in f32; at least 40
  std::vector<Precision> systems = {};  ///< none: `usual_systems`
  bool rehearse = true;                 ///< lets systems train that their fidelity cannot settle; else these are risky
  std::function<void(const std::string& what, double share)> progress = {};  ///< share of the work that is done
};

struct Suggestion {
  Precision precision;
  std::string options;  ///< of the program
  std::string code;     ///< in C++
};

struct Diagnosis {
  std::vector<WatchedTensor> tensors;
  std::vector<std::string> suggested;  ///< of each tensor, the cheapest storage that its numbers bear: "e4m3, scaled"
  SafeScales loss_scale;
  std::vector<Prognosis> systems;
  Suggestion suggestion;
  std::vector<float> losses;  ///< of the steps in f32
  double step_seconds = 0;    ///< of all steps in f32
  double watch_seconds = 0;   ///< of all looks at them
};

/// f16 without a scale and with a dynamic one, bf16, both without masters, fixed point of 16 bits, fp8, int8, mxfp8.
std::vector<Precision> usual_systems();

/// Trains a net for some steps in f32, watching, and foretells how number systems would do (docs/numerics.md says by
/// what). Throws Error for options that no training can have, a number system that changes the net, and where f32
/// itself gives numbers that are not finite. Each number system takes the memory of a training, all at the same time.
Diagnosis diagnose(Value loss, const Loader& loader, const DoctorOptions& options = {});

}  // namespace halftone

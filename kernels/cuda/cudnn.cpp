#include "kernels/cuda/cudnn.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>

#include "kernels/cuda/agreement.hpp"
#include "kernels/cuda/cudnn_library.hpp"

namespace halftone::cuda {

CudnnOptions CudnnOptions::from_environment() {
  CudnnOptions options;
  if (const char* tune = environment("HALFTONE_CUDNN_TUNE")) options.tune = std::string_view(tune) == "1";
  if (const char* cache = environment("XDG_CACHE_HOME"))
    options.cache = std::filesystem::path(cache) / "halftone" / "cudnn-plans.json";
  else if (const char* home = environment("HOME"))
    options.cache = std::filesystem::path(home) / ".cache" / "halftone" / "cudnn-plans.json";
  return options;
}

namespace {

/// The tensors in the order of `Operands`: inputs, then the output.
std::vector<std::int64_t> tensors_of(const Convolution& convolution) {
  switch (convolution.direction) {
    case Direction::forward:
      if (convolution.operands.inputs.size() > 2) return {tensor_x, tensor_weight, tensor_bias, tensor_y};
      return {tensor_x, tensor_weight, tensor_y};
    case Direction::d_input:
      return {tensor_y, tensor_weight, tensor_x};
    case Direction::d_weight:
      break;
  }
  return {tensor_x, tensor_y, tensor_weight};
}

class Handle {
 public:
  explicit Handle(void* stream) {
    check(cudnn().create_handle(&raw_), "making a handle");
    check(cudnn().set_stream(raw_, static_cast<cudaStream_t>(stream)), "setting a handle's stream");
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (raw_) cudnn().destroy_handle(raw_);
  }
  cudnnHandle_t raw() const { return raw_; }

 private:
  cudnnHandle_t raw_ = nullptr;
};

/// The plan that runs, or why there is none.
struct Choice {
  std::optional<ConvolutionPlan> plan = {};
  std::string reason = {};
};

/// What is kept for a driver.
struct Session {
  explicit Session(Driver& the_driver)
      : driver(the_driver),
        handle(the_driver.native_stream()),
        plans(ConvolutionPlans::of_handle(handle.raw(), CudnnOptions::from_environment())) {}

  Driver& driver;
  Handle handle;
  ConvolutionPlans plans;
  std::map<std::string, Choice> chosen = {};  ///< by description
};

/// A plan made ready for a stream.
class Execution {
 public:
  Execution(std::shared_ptr<Session> session, const Convolution& convolution, const ConvolutionPlan& plan)
      : session_(std::move(session)),
        tensors_(tensors_of(convolution)),
        workspace_(plan.workspace),
        what_(description_of(convolution)),
        plan_(doing(what_, [&] { return execution_plan(session_->plans, convolution, plan); })) {}

  std::size_t workspace() const { return workspace_ ? workspace_ + workspace_alignment : 0; }

  /// Pointers in the order of `Operands`.
  void run(const std::vector<void*>& operands, void* workspace) {
    if (!pack_ || operands != operands_ || workspace != bound_) bind(operands, workspace);
    session_->driver.native_stream();  // its device becomes the current one
    check(cudnn().execute(session_->handle.raw(), plan_.raw(), pack_->raw()), what_);
  }

 private:
  void bind(const std::vector<void*>& operands, void* workspace) {
    for (const void* data : operands)
      if (reinterpret_cast<std::uintptr_t>(data) % tensor_alignment != 0)
        throw Failure(
            fmt::format("cuDNN: {}: a tensor does not begin at a multiple of {} bytes", what_, tensor_alignment));
    pack_.reset();
    pack_.emplace(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "a plan's memory");
    pack_->set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, tensors_.size(), tensors_.data())
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, operands.size(), operands.data())
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace_ ? aligned(workspace) : nullptr)
        .finalize();
    operands_ = operands;
    bound_ = workspace;
  }

  std::shared_ptr<Session> session_;
  std::vector<std::int64_t> tensors_;
  std::size_t workspace_;
  std::string what_;
  Descriptor plan_;
  std::optional<Descriptor> pack_;  ///< of the memory below, which does not change once a plan is built
  std::vector<void*> operands_ = {};
  void* bound_ = nullptr;
};

std::shared_ptr<Session> session_of(Driver& driver) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!driver.cudnn) driver.cudnn = std::make_shared<Session>(driver);
  return std::static_pointer_cast<Session>(driver.cudnn);
}

Launch launch_of(const std::shared_ptr<Session>& session, const Convolution& convolution, const ConvolutionPlan& plan) {
  const auto execution = std::make_shared<Execution>(session, convolution, plan);
  const auto run = [execution](const Arguments& a) {
    std::vector<void*> operands;
    for (const Memory& input : a.inputs) operands.push_back(input.data);
    operands.push_back(a.outputs[0].data);
    execution->run(operands, a.workspace);
  };
  return {.run = run, .workspace = execution->workspace()};
}

/// Milliseconds of a plan on memory of its own; throws Failure where it does not run.
double timed(const std::shared_ptr<Session>& session, const Convolution& convolution, const ConvolutionPlan& plan) {
  Driver& driver = session->driver;
  Execution execution(session, convolution, plan);
  std::deque<Scratch> memory;
  std::vector<void*> operands;
  const auto add = [&](const ValueSpec& value) {
    operands.push_back(memory.emplace_back(driver, value.tensor().bytes()).data());
  };
  for (const ValueSpec& input : convolution.operands.inputs) add(input);
  add(convolution.operands.output);
  const Scratch workspace(driver, execution.workspace());
  return milliseconds_of(driver, [&] { execution.run(operands, workspace.data()); });
}

/// The first plan, or the fastest, of those on tensor cores or of the others that runs and is right; looked for once.
const Choice& choose(const std::shared_ptr<Session>& session, const Convolution& convolution, bool on_tensor_cores) {
  const std::string description = description_of(convolution) + (on_tensor_cores ? ", on tensor cores" : "");
  if (const auto known = session->chosen.find(description); known != session->chosen.end()) return known->second;

  Choice choice;
  const CudnnOptions& options = session->plans.options();
  std::vector<ConvolutionPlan> plans = session->plans.allowed(convolution);
  std::erase_if(plans, [&](const ConvolutionPlan& plan) { return plan.tensor_cores != on_tensor_cores; });
  if (plans.empty()) {
    choice.reason = fmt::format(
        "cuDNN {} has no plan{} that keeps sums in f32, gives the same bits in each run and works in {} MB of scratch",
        cudnn_version(), on_tensor_cores ? " on tensor cores" : "", options.workspace >> 20);
  } else {
    const Agreement agreement(session->driver, convolution);
    const auto hold = [&](const ConvolutionPlan& plan) {
      if (const std::string reason = agreement.differs(launch_of(session, convolution, plan)); !reason.empty())
        throw Failure(fmt::format("cuDNN {}, engine {}: {}", cudnn_version(), plan.engine, reason));
    };
    if (options.tune) {
      const std::size_t fastest = tuned(PlanCache(options.cache), session->plans.name() + ": " + description, plans,
                                        [&](const ConvolutionPlan& plan) {
                                          hold(plan);
                                          return timed(session, convolution, plan);
                                        });
      std::rotate(plans.begin(), plans.begin() + static_cast<std::ptrdiff_t>(fastest), plans.end());
    }
    for (const ConvolutionPlan& plan : plans) {
      try {
        hold(plan);
        choice = {.plan = plan};
        break;
      } catch (const Failure& failure) {  // cuDNN proposes more than it can do
        if (choice.reason.empty()) choice.reason = failure.what();
      }
    }
  }
  return session->chosen.emplace(description, std::move(choice)).first->second;
}

}  // namespace

std::string decline_cudnn(const Convolution& convolution, Driver& driver, bool on_tensor_cores) {
  if (std::string reason = decline_storages(convolution); !reason.empty()) return reason;
  if (!driver.native_stream()) return "no GPU";
  if (const char* off = environment("HALFTONE_CUDNN"); off && std::string_view(off) == "0") return "HALFTONE_CUDNN=0";
  if (std::string reason = why_no_cudnn(); !reason.empty()) return reason;
  constexpr std::size_t right_depthwise = 92400;  // wrong before where several sizes of image run in a row
  const ConvProblem& problem = convolution.problem;
  if (problem.groups > 1 && problem.groups == problem.c && cudnn().version() < right_depthwise)
    return fmt::format("cuDNN {} is not trusted with depthwise ones", cudnn_version());
  try {
    return choose(session_of(driver), convolution, on_tensor_cores).reason;
  } catch (const Failure& failure) {
    return failure.what();
  }
}

Launch make_cudnn(const Convolution& convolution, Driver& driver, bool on_tensor_cores) {
  const std::shared_ptr<Session> session = session_of(driver);
  const Choice& choice = choose(session, convolution, on_tensor_cores);
  if (!choice.plan) fail(choice.reason);
  return launch_of(session, convolution, *choice.plan);
}

}  // namespace halftone::cuda

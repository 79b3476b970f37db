#include "kernels/cuda/cudnn.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>

#include "kernels/cuda/cudnn_library.hpp"
#include "kernels/cuda/driver.hpp"

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
std::array<std::int64_t, 3> tensors_of(Direction direction) {
  switch (direction) {
    case Direction::forward:
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

/// What is kept for a driver.
struct Session {
  explicit Session(Driver& the_driver)
      : driver(the_driver),
        handle(the_driver.native_stream()),
        plans(ConvolutionPlans::of_handle(handle.raw(), CudnnOptions::from_environment())) {}

  Driver& driver;
  Handle handle;
  ConvolutionPlans plans;
  std::map<std::string, std::size_t> chosen = {};  ///< which plan runs, by description
};

/// Device memory that is freed with it.
class Scratch {
 public:
  Scratch(Driver& driver, std::size_t bytes)
      : driver_(driver), data_(driver.allocate(std::max<std::size_t>(bytes, 1))) {
    if (bytes > 0) driver.clear(data_, bytes);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { driver_.free(data_); }
  void* data() const { return data_; }

 private:
  Driver& driver_;
  void* data_;
};

/// A plan made ready for a stream.
class Execution {
 public:
  Execution(std::shared_ptr<Session> session, const Convolution& convolution, const ConvolutionPlan& plan)
      : session_(std::move(session)),
        tensors_(tensors_of(convolution.direction)),
        workspace_(plan.workspace),
        what_(description_of(convolution)),
        plan_(doing(what_, [&] { return execution_plan(session_->plans, convolution, plan); })) {}

  std::size_t workspace() const { return workspace_ ? workspace_ + workspace_alignment : 0; }

  void run(const std::array<void*, 3>& operands, void* workspace) {
    if (!pack_ || operands != operands_ || workspace != bound_) bind(operands, workspace);
    session_->driver.native_stream();  // its device becomes the current one
    check(cudnn().execute(session_->handle.raw(), plan_.raw(), pack_->raw()), what_);
  }

 private:
  static constexpr std::size_t workspace_alignment = 256;

  void bind(const std::array<void*, 3>& operands, void* workspace) {
    for (const void* data : operands)
      if (reinterpret_cast<std::uintptr_t>(data) % tensor_alignment != 0)
        throw Failure(
            fmt::format("cuDNN: {}: a tensor does not begin at a multiple of {} bytes", what_, tensor_alignment));
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(workspace) + workspace_alignment - 1;
    void* aligned = workspace_ ? reinterpret_cast<void*>(address / workspace_alignment * workspace_alignment) : nullptr;
    pack_.reset();
    pack_.emplace(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "a plan's memory");
    pack_->set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, tensors_.size(), tensors_.data())
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, operands.size(), operands.data())
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, aligned)
        .finalize();
    operands_ = operands;
    bound_ = workspace;
  }

  std::shared_ptr<Session> session_;
  std::array<std::int64_t, 3> tensors_;
  std::size_t workspace_;
  std::string what_;
  Descriptor plan_;
  std::optional<Descriptor> pack_;  ///< of the memory below, which does not change once a plan is built
  std::array<void*, 3> operands_ = {};
  void* bound_ = nullptr;
};

std::shared_ptr<Session> session_of(Driver& driver) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!driver.cudnn) driver.cudnn = std::make_shared<Session>(driver);
  return std::static_pointer_cast<Session>(driver.cudnn);
}

/// Milliseconds of a plan on memory of its own; throws Failure where it does not run.
double timed(const std::shared_ptr<Session>& session, const Convolution& convolution, const ConvolutionPlan& plan) {
  Driver& driver = session->driver;
  Execution execution(session, convolution, plan);
  const Operands& o = convolution.operands;
  const Scratch first(driver, o.inputs[0].tensor().bytes()), second(driver, o.inputs[1].tensor().bytes());
  const Scratch output(driver, o.output.tensor().bytes()), workspace(driver, execution.workspace());
  return milliseconds_of(driver, [&] {
    execution.run({first.data(), second.data(), output.data()}, workspace.data());
  });
}

/// The first plan that runs, also in a capture, or the fastest; tried once for each description.
std::size_t choose(const std::shared_ptr<Session>& session, const Convolution& convolution,
                   const std::vector<ConvolutionPlan>& plans) {
  const auto [place, is_new] = session->chosen.try_emplace(description_of(convolution), 0);
  if (!is_new) return place->second;
  const CudnnOptions& options = session->plans.options();
  const auto time = [&](const ConvolutionPlan& plan) { return timed(session, convolution, plan); };
  if (options.tune)
    return place->second = tuned(PlanCache(options.cache), session->plans.name() + ": " + place->first, plans, time);
  for (std::size_t& i = place->second; i + 1 < plans.size(); ++i) {
    try {
      time(plans[i]);
      break;
    } catch (const Failure&) {  // cuDNN proposes more than it can do
    }
  }
  return place->second;
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
    const ConvolutionPlans& plans = session_of(driver)->plans;
    const auto allowed = plans.allowed(convolution);
    if (!allowed.empty() && on_tensor_cores && !allowed[0].tensor_cores) return "its first plan is not on tensor cores";
    if (!allowed.empty()) return {};
    return fmt::format(
        "cuDNN {} has no plan that keeps sums in f32, gives the same bits in each run and works in {} MB of scratch",
        cudnn_version(), plans.options().workspace >> 20);
  } catch (const Failure& failure) {
    return failure.what();
  }
}

Launch make_cudnn(const Convolution& convolution, Driver& driver) {
  const std::shared_ptr<Session> session = session_of(driver);
  std::vector<ConvolutionPlan> plans = session->plans.allowed(convolution);
  if (plans.empty()) fail(fmt::format("cuDNN has no plan: {}", description_of(convolution)));
  std::stable_partition(plans.begin(), plans.end(), [on_tensor_cores = plans[0].tensor_cores](const auto& plan) {
    return plan.tensor_cores == on_tensor_cores;
  });
  const auto execution = std::make_shared<Execution>(session, convolution, plans[choose(session, convolution, plans)]);
  const auto run = [execution](const Arguments& a) {
    execution->run({a.inputs[0].data, a.inputs[1].data, a.outputs[0].data}, a.workspace);
  };
  return {.run = run, .workspace = execution->workspace()};
}

}  // namespace halftone::cuda

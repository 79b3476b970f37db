#pragma once
#include <sys/mman.h>

#include <cstring>
#include <deque>

#include "halftone/graph/graph.hpp"
#include "halftone/graph/kernel.hpp"

namespace halftone::test {

/// A device that shows what a backend may count on: the host cannot touch its memory, work waits in a queue until
/// somebody needs a number, and it has passes of its own. Its arithmetic is the CPU's.
class ToyBackend final : public Backend {
 public:
  explicit ToyBackend(std::vector<Pass> passes = {}, int ahead = 0)
      : table_(kernels_of_cpu(), std::move(passes)), ahead_(ahead) {}

  std::string name() const override { return "toy"; }
  std::string description() const override { return "a toy"; }

  void* allocate(std::size_t bytes) override {
    void* memory = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw Failure("the toy is full");
    blocks_[memory] = bytes;
    return memory;
  }
  void free(void* memory, std::size_t bytes) noexcept override {
    drain();
    blocks_.erase(memory);
    ::munmap(memory, bytes);
  }

  void upload(void* device, const void* host, std::size_t bytes) override {
    const auto* from = static_cast<const std::byte*>(host);
    queue_.push_back([device, copy = std::vector<std::byte>(from, from + bytes)] {
      if (!copy.empty()) std::memcpy(device, copy.data(), copy.size());
    });
  }
  void download(void* host, const void* device, std::size_t bytes) override { download_later(host, device, bytes)(); }
  std::function<void()> download_later(void* host, const void* device, std::size_t bytes) override {
    const std::size_t number = ++downloads_;
    queue_.push_back([=, this] {
      if (bytes > 0) std::memcpy(host, device, bytes);
      arrived_ = number;
    });
    return [=, this] {
      if (arrived_ < number) drain();
    };
  }
  int steps_ahead() const override { return ahead_; }
  void synchronize() override { drain(); }
  std::function<void()> capture(std::function<void()> enqueue) override {
    ++captures;
    std::deque<std::function<void()>> before;
    std::swap(before, queue_);
    capturing_ = true;
    enqueue();
    capturing_ = false;
    std::swap(before, queue_);
    return [this, recorded = std::move(before)] { queue_.insert(queue_.end(), recorded.begin(), recorded.end()); };
  }
  void* stream() override { return nullptr; }
  const KernelTable& kernels() const override { return table_; }

  void enqueue(std::function<void()> work) { queue_.push_back(std::move(work)); }

  int captures = 0, drains = 0;

 private:
  static const Device& cpu() {
    static const Device device = cpu_device({.threads = 2});
    return device;
  }

  static Request on_cpu(const Request& request) { return {request.op, request.inputs, request.outputs, cpu()}; }

  static std::string declined_by_cpu(const Request& request) {
    return has_kernel(on_cpu(request)) ? "" : "the CPU has none";
  }

  /// The CPU's launch, put into the queue.
  static Launch enqueued(const Request& request) {
    Launch launch = choose_kernel(on_cpu(request)).launch;
    auto& toy = static_cast<ToyBackend&>(request.device.backend());
    launch.run = [&toy, run = launch.run](const Arguments& a) {
      toy.enqueue([run, inputs = std::vector<Memory>(a.inputs.begin(), a.inputs.end()),
                   outputs = std::vector<Memory>(a.outputs.begin(), a.outputs.end()), workspace = a.workspace,
                   state = a.state] {
        run({inputs, outputs, workspace, state, nullptr});
      });
    };
    return launch;
  }

  static KernelTable::Lists kernels_of_cpu() {
    KernelTable::Lists lists;
    for (const auto& [type, list] : cpu().backend().kernels().all()) {
      const Kernel kernel{
          .name = "on_cpu", .make = enqueued, .decline = declined_by_cpu, .writes = list.kernels[0].writes};
      lists.emplace(type, KernelTable::List{list.operation, {kernel}});
    }
    return lists;
  }

  void protect(int rights) {
    for (const auto& [memory, bytes] : blocks_) ::mprotect(memory, bytes, rights);
  }

  void drain() {
    if (capturing_) fail("the host waits for what is only being captured");
    if (queue_.empty()) return;
    ++drains;
    protect(PROT_READ | PROT_WRITE);
    for (; !queue_.empty(); queue_.pop_front()) queue_.front()();
    protect(PROT_NONE);
  }

  KernelTable table_;
  int ahead_;
  bool capturing_ = false;
  std::map<void*, std::size_t> blocks_;
  std::deque<std::function<void()>> queue_;
  std::size_t downloads_ = 0, arrived_ = 0;
};

}  // namespace halftone::test

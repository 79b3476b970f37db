#include "tests/cuda_host/driver.hpp"

#include <cxxabi.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <new>
#include <utility>

#include "halftone/tensor/error.hpp"
#include "kernels/cuda/backend.hpp"

namespace halftone::cuda_host {
namespace {

constexpr int devices = 2;
constexpr unsigned most_threads = 1024, most_blocks = 0x7fffffff;
constexpr std::size_t most_shared = 227 << 10;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status),
                                                         std::free);
  return status == 0 ? text.get() : name;
}

class HostDriver final : public cuda::Driver {
 public:
  explicit HostDriver(const Schedule& schedule) : schedule_(schedule) {
    facts_ = {.name = "GPU of fibres", .major = 8, .minor = 0, .memory = std::size_t{4} << 30};
  }
  ~HostDriver() override {
    for (const auto& [memory, block] : blocks_) ::munmap(block.mapping, block.mapped + page());
    for (const auto& [memory, bytes] : pinned_) ::operator delete(memory, pinned_alignment);
  }

  const cuda::DeviceFacts& facts() const override { return facts_; }

  /// Memory that holds no zeros and ends where a page that nobody may touch begins.
  void* allocate(std::size_t bytes) override {
    refuse_in_capture("allocates memory");
    ++counts.allocations;
    if (bytes > facts_.memory - used_)
      throw Failure(fmt::format("{}: no room for {} bytes, {} are free", facts_.name, bytes, facts_.memory - used_));
    const std::size_t mapped = round_up(std::max<std::size_t>(bytes, 1), page());
    void* mapping = ::mmap(nullptr, mapped + page(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw Failure(fmt::format("{}: no room for {} bytes", facts_.name, bytes));
    std::byte* memory = static_cast<std::byte*>(mapping) + mapped - round_up(bytes, 256);
    blocks_[memory] = {bytes, mapping, mapped};
    used_ += bytes;
    enqueue([memory, bytes] { std::memset(memory, 0xff, bytes); });
    return memory;
  }
  void free(void* device) noexcept override {
    if (!device) return;
    try {
      refuse_in_capture("frees memory");
      drain();
    } catch (...) {
      failure_ = std::current_exception();  // for the next who waits
    }
    const auto block = blocks_.find(static_cast<std::byte*>(device));
    if (block == blocks_.end()) std::abort();
    used_ -= block->second.bytes;
    ::munmap(block->second.mapping, block->second.mapped + page());
    blocks_.erase(block);
  }
  void* allocate_pinned(std::size_t bytes) override {
    ++counts.allocations;
    auto* memory = static_cast<std::byte*>(::operator new(bytes, pinned_alignment));
    pinned_[memory] = bytes;
    return memory;
  }
  void free_pinned(void* host) noexcept override {
    if (!host) return;
    try {
      drain();
    } catch (...) {
      failure_ = std::current_exception();
    }
    if (pinned_.erase(static_cast<std::byte*>(host)) == 0) std::abort();
    ::operator delete(host, pinned_alignment);
  }

  void clear(void* device, std::size_t bytes) override {
    check_device(device, bytes);
    enqueue([=] { std::memset(device, 0, bytes); });
  }
  void copy_in(void* device, const void* pinned, std::size_t bytes) override {
    check_device(device, bytes);
    check_pinned(pinned, bytes);
    enqueue([=] { std::memcpy(device, pinned, bytes); });
  }
  void copy_out(void* pinned, const void* device, std::size_t bytes) override {
    check_device(device, bytes);
    check_pinned(pinned, bytes);
    enqueue([=] { std::memcpy(pinned, device, bytes); });
  }

  void launch(const cuda::KernelCode& code, unsigned blocks, const void* kernel) override {
    ++counts.launches;
    if (blocks == 0 || blocks > most_blocks || code.threads == 0 || code.threads > most_threads ||
        code.shared > most_shared)
      throw Failure(fmt::format("kernel {}: {} blocks of {} threads with {} bytes of shared memory cannot be launched",
                                demangled(code.name), blocks, code.threads, code.shared));
    const auto arguments =
        std::make_shared<std::max_align_t[]>(round_up(code.bytes, sizeof(std::max_align_t)) / sizeof(std::max_align_t));
    std::memcpy(arguments.get(), kernel, code.bytes);
    enqueue([=, this] {
      const std::string name = demangled(code.name);
      const auto entry = reinterpret_cast<void (*)(const void*, void*)>(const_cast<void*>(code.entry));
      run_grid({name.c_str(), blocks, code.threads, code.shared, entry, arguments.get()}, schedule_);
    });
  }

  Event make_event() override { return new Shared(std::make_shared<Recorded>()); }
  void free_event(Event event) noexcept override { delete static_cast<Shared*>(event); }
  void record(Event event) override {
    refuse_in_capture("records an event");
    const Shared& recorded = *static_cast<Shared*>(event);
    enqueue([recorded, time = ++recorded->asked] { recorded->done = time; });
  }
  void wait(Event event) override {
    ++counts.waits;
    const Shared recorded = *static_cast<Shared*>(event);
    wait_until([&] { return recorded->done == recorded->asked; });
  }
  void synchronize() override {
    ++counts.synchronizations;
    wait_until([] { return false; });
  }

  void begin_capture() override {
    refuse_in_capture("captures");
    recorded_ = std::make_shared<Queue>();
  }
  std::shared_ptr<void> end_capture() override {
    if (!recorded_) throw Failure(facts_.name + ": nothing is being captured");
    return std::exchange(recorded_, nullptr);
  }
  void replay(void* captured) override {
    refuse_in_capture("replays");
    const auto& work = *static_cast<const Queue*>(captured);
    queue_.insert(queue_.end(), work.begin(), work.end());
  }

  void* native_stream() override { return nullptr; }

 private:
  using Queue = std::deque<std::function<void()>>;
  struct Block {
    std::size_t bytes;
    void* mapping;
    std::size_t mapped;
  };
  struct Recorded {
    std::int64_t asked = 0, done = 0;
  };
  using Shared = std::shared_ptr<Recorded>;
  static constexpr std::align_val_t pinned_alignment{256};

  static std::size_t page() {
    static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return bytes;
  }

  void enqueue(std::function<void()> work) { (recorded_ ? *recorded_ : queue_).push_back(std::move(work)); }

  void refuse_in_capture(const char* what) const {
    if (recorded_) throw Failure(fmt::format("{}: the host {} while work is captured", facts_.name, what));
  }

  static std::size_t bytes_of(const Block& block) { return block.bytes; }
  static std::size_t bytes_of(std::size_t bytes) { return bytes; }
  template <class Blocks>
  void check(const Blocks& blocks, const void* p, std::size_t bytes, const char* kind) const {
    const auto after = blocks.upper_bound(static_cast<const std::byte*>(p));
    if (after != blocks.begin()) {
      const auto& [first, block] = *std::prev(after);
      if (static_cast<const std::byte*>(p) + bytes <= first + bytes_of(block)) return;
    }
    if (bytes > 0) throw Failure(fmt::format("{}: {} bytes at {} are no {} memory", facts_.name, bytes, p, kind));
  }
  void check_device(const void* p, std::size_t bytes) const { check(blocks_, p, bytes, "device"); }
  void check_pinned(const void* p, std::size_t bytes) const { check(pinned_, p, bytes, "pinned"); }

  void protect(int rights) {
    for (const auto& [memory, block] : blocks_) ::mprotect(block.mapping, block.mapped, rights);
  }

  /// Does what is queued until `enough()`. After a failure nothing more is done.
  template <class Enough>
  void drain_until(Enough&& enough) {
    if (queue_.empty() || enough()) return;
    protect(PROT_READ | PROT_WRITE);
    for (; !queue_.empty() && !enough(); queue_.pop_front()) {
      if (failure_) continue;
      try {
        queue_.front()();
      } catch (...) {
        failure_ = std::current_exception();
      }
    }
    protect(PROT_NONE);
  }
  void drain() {
    drain_until([] { return false; });
  }
  template <class Enough>
  void wait_until(Enough&& enough) {
    refuse_in_capture("waits");
    drain_until(enough);
    if (failure_) std::rethrow_exception(failure_);
  }

  cuda::DeviceFacts facts_;
  Schedule schedule_;
  std::size_t used_ = 0;
  std::map<std::byte*, Block, std::less<>> blocks_;
  std::map<std::byte*, std::size_t, std::less<>> pinned_;
  Queue queue_;
  std::shared_ptr<Queue> recorded_;  ///< while work is captured
  std::exception_ptr failure_;
};

}  // namespace

Schedule parse_schedule(const std::string& text) {
  if (text == "forward") return {};
  if (text == "reverse") return {Order::reverse};
  if (text == "random") return {Order::random};
  Schedule schedule{Order::random};
  constexpr std::string_view random = "random:";
  if (text.starts_with(random)) {
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + random.size(), end, schedule.seed);
    if (error == std::errc() && rest == end) return schedule;
  }
  fail(fmt::format("{}={}: forward, reverse, random or random:SEED", schedule_variable, text));
}

std::unique_ptr<cuda::Driver> make_driver(int ordinal, const Schedule& schedule) {
  if (ordinal < 0 || ordinal >= devices) fail(fmt::format("device cuda:{}: there are {}", ordinal, devices));
  return std::make_unique<HostDriver>(schedule);
}

}  // namespace halftone::cuda_host

namespace halftone::cuda {

std::unique_ptr<Driver> make_driver(int ordinal) {
  const char* const order = std::getenv(cuda_host::schedule_variable);
  return cuda_host::make_driver(ordinal, cuda_host::parse_schedule(order          ? order
                                                                   : ordinal == 0 ? "forward"
                                                                                  : "random"));
}
int device_count() { return cuda_host::devices; }
std::string why_no_device() { return {}; }
std::string built_for() { return "the host"; }

}  // namespace halftone::cuda

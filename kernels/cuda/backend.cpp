#include "kernels/cuda/backend.hpp"

#include <fmt/format.h>

#include <cstring>
#include <mutex>
#include <vector>

#include "halftone/tensor/error.hpp"
#include "kernels/cuda/driver.hpp"

namespace halftone::cuda {
namespace {

/// Pinned memory on its way from or to the device.
class Staging {
 public:
  explicit Staging(Driver& driver) : driver_(driver), event_(driver.make_event()) {}
  ~Staging() {
    driver_.free_event(event_);
    driver_.free_pinned(memory_);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Room for `bytes`, when nothing is under way in it any more.
  void* room(std::size_t bytes) {
    wait();
    if (bytes > bytes_) {
      driver_.free_pinned(memory_);
      memory_ = nullptr;
      memory_ = driver_.allocate_pinned(bytes);
      bytes_ = bytes;
    }
    return memory_;
  }
  void under_way() {
    driver_.record(event_);
    busy_ = true;
  }
  void wait() {
    if (busy_) driver_.wait(event_);
    busy_ = false;
  }
  const void* memory() const { return memory_; }

 private:
  Driver& driver_;
  Driver::Event event_;
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
  bool busy_ = false;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(std::unique_ptr<Driver> driver) : driver_(std::move(driver)) {
    for (int i = 0; i < uploads; ++i) uploads_.push_back(std::make_unique<Staging>(*driver_));
  }
  ~CudaBackend() override {
    try {
      driver_->synchronize();
    } catch (...) {  // a device that fails now has nobody left to tell
    }
  }

  std::string name() const override { return "cuda"; }
  std::string description() const override {
    const DeviceFacts& facts = driver_->facts();
    return fmt::format("{}, compute capability {}.{}, {} MiB, {}", facts.name, facts.major, facts.minor,
                       facts.memory >> 20, built_for());
  }
  void* allocate(std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    void* memory = driver_->allocate(bytes);
    driver_->clear(memory, bytes);
    return memory;
  }
  void free(void* memory, std::size_t) noexcept override {
    const std::lock_guard lock(mutex_);
    driver_->free(memory);
  }
  void upload(void* device, const void* host, std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    for (std::size_t done = 0, part; done < bytes; done += part) {
      part = std::min(most_staged, bytes - done);
      Staging& staging = *uploads_[next_upload_];
      next_upload_ = (next_upload_ + 1) % uploads_.size();
      void* pinned = staging.room(part);
      std::memcpy(pinned, static_cast<const std::byte*>(host) + done, part);
      driver_->copy_in(static_cast<std::byte*>(device) + done, pinned, part);
      staging.under_way();
    }
  }
  void download(void* host, const void* device, std::size_t bytes) override {
    for (std::size_t done = 0, part; done < bytes; done += part) {
      part = std::min(most_staged, bytes - done);
      download_later(static_cast<std::byte*>(host) + done, static_cast<const std::byte*>(device) + done, part)();
    }
  }
  std::function<void()> download_later(void* host, const void* device, std::size_t bytes) override {
    if (bytes == 0) return [] {};
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Staging> staging(take_download().release(), [this](Staging* free) {
      const std::lock_guard again(mutex_);
      downloads_.emplace_back(free);
    });
    void* pinned = staging->room(bytes);
    driver_->copy_out(pinned, device, bytes);
    staging->under_way();
    return [staging, host, bytes] {
      staging->wait();
      std::memcpy(host, staging->memory(), bytes);
    };
  }
  int steps_ahead() const override { return 4; }
  void synchronize() override {
    const std::lock_guard lock(mutex_);
    driver_->synchronize();
  }
  std::function<void()> capture(std::function<void()> enqueue) override {
    const std::lock_guard lock(mutex_);
    driver_->begin_capture();
    try {
      enqueue();
    } catch (...) {
      try {
        driver_->end_capture();
      } catch (...) {  // the first failure is the cause
      }
      throw;
    }
    return [this, captured = driver_->end_capture()] {
      const std::lock_guard again(mutex_);
      driver_->replay(captured.get());
    };
  }
  void* stream() override { return driver_.get(); }
  const KernelTable& kernels() const override { return kernel_table(); }

 private:
  static constexpr int uploads = 8;
  static constexpr std::size_t most_staged = std::size_t{16} << 20;

  std::unique_ptr<Staging> take_download() {
    if (downloads_.empty()) return std::make_unique<Staging>(*driver_);
    auto staging = std::move(downloads_.back());
    downloads_.pop_back();
    return staging;
  }

  std::recursive_mutex mutex_;  // one capture, or use of staging, at a time
  std::unique_ptr<Driver> driver_;
  std::vector<std::unique_ptr<Staging>> uploads_, downloads_;
  std::size_t next_upload_ = 0;
};

}  // namespace

std::shared_ptr<Backend> make_backend(std::unique_ptr<Driver> driver) {
  return std::make_shared<CudaBackend>(std::move(driver));
}

std::shared_ptr<Backend> make_backend(int ordinal) { return make_backend(make_driver(ordinal)); }

Driver& driver_of(const Request& request) { return *static_cast<Driver*>(request.device.backend().stream()); }

}  // namespace halftone::cuda

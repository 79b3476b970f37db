#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "halftone/data/loader.hpp"

namespace halftone {

/// A ring of batches: batch b lives in slot b modulo the number of slots, from being claimed by a worker until the
/// consumer asks for batch b + 1.
class Epoch::Queue {
 public:
  Queue(Make make, std::int64_t first, std::int64_t last, int workers, int prefetch)
      : make_(std::move(make)), claimed_(first), current_(first), last_(last) {
    const std::int64_t ahead = std::min<std::int64_t>(prefetch, last - first),
                       threads = std::min<std::int64_t>(workers, ahead);
    slots_.resize(threads > 0 ? static_cast<std::size_t>(ahead) + 1 : 1);
    for (std::int64_t i = 0; i < threads; ++i)
      threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  }

  /// Whether this is a child of the process that has the workers: here nobody fills batches or may be waited for.
  bool orphaned() const { return !threads_.empty() && getpid() != process_; }

  const Batch* next() {
    if (threads_.empty()) return make_here();
    if (orphaned()) fail("this epoch belongs to the process that forked: begin another one here");
    std::unique_lock lock(mutex_);
    if (held_) release();
    if (current_ == last_) return nullptr;
    Slot& slot = slot_of(current_);
    made_.wait(lock, [&] { return slot.ready; });
    if (slot.error) std::rethrow_exception(slot.error);
    held_ = true;
    return &slot.batch;
  }

 private:
  struct Slot {
    Batch batch;
    bool ready = false;
    std::exception_ptr error;
  };

  Slot& slot_of(std::int64_t batch) { return slots_[static_cast<std::size_t>(batch) % slots_.size()]; }

  const Batch* make_here() {
    if (current_ == last_) return nullptr;
    make_(current_, slots_[0].batch);
    ++current_;
    return &slots_[0].batch;
  }

  void release() {
    slot_of(current_++).ready = false;
    held_ = false;
    room_.notify_one();
  }

  bool may_claim() const { return claimed_ < last_ && claimed_ - current_ < static_cast<std::int64_t>(slots_.size()); }

  void work(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (room_.wait(lock, stop, [this] { return may_claim(); }) && !stop.stop_requested()) {
      const std::int64_t batch = claimed_++;
      Slot& slot = slot_of(batch);
      lock.unlock();
      try {
        make_(batch, slot.batch);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      slot.ready = true;
      made_.notify_one();
    }
  }

  Make make_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable_any room_;
  std::condition_variable made_;
  std::int64_t claimed_, current_, last_;  // next to make, next to serve or held by the consumer, end
  bool held_ = false;
  const pid_t process_ = getpid();
  std::vector<std::jthread> threads_;  // last: joined before anything else goes
};

Epoch::Epoch(Make make, std::int64_t first, std::int64_t last, int workers, int prefetch)
    : queue_(std::make_unique<Queue>(std::move(make), first, last, workers, prefetch)) {}
Epoch::~Epoch() {
  if (queue_ && queue_->orphaned()) static_cast<void>(queue_.release());
}
Epoch::Epoch(Epoch&&) noexcept = default;
Epoch& Epoch::operator=(Epoch&& other) noexcept {
  std::swap(queue_, other.queue_);
  return *this;
}

const Batch* Epoch::next() { return queue_->next(); }

}  // namespace halftone

#include "kernels/cpu/parallel.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/cpu/float_mode.hpp"
#include "kernels/cpu/storage.hpp"

namespace halftone::cpu {
namespace {

using Task = void (*)(void*, std::int64_t, int);

// Why not OpenMP: its barrier waits for every thread of a team, also one that the operating system has not run yet. On
// a machine that others use too, that made a LeNet step twenty times slower than with tasks that whoever is awake
// takes.

/// Threads that sleep until there are tasks. Each (or, beyond 64, some together) has a share of them, side by side, so
/// that in the next job it finds in its cache what it wrote in this one; whoever is done with his own takes of the
/// others'. A task is claimed by counting up its share's ticket, which holds the job's number in its upper half; a
/// claim succeeds only while that job is open, so a thread that wakes late touches nothing.
class Pool {
 public:
  ~Pool() {
    if (forked()) {  // they can be neither joined nor detached; leak checkers find them here
      [[maybe_unused]] static std::vector<std::thread>* volatile abandoned;
      abandoned = new auto(std::move(helpers_));
      return;
    }
    stop_ = true;
    announced_ = ~std::uint64_t{0};
    announced_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
  }

  void run(int threads, std::int64_t tasks, Task task, void* context) {
    const std::unique_lock only(mutex_, std::try_to_lock);
    if (!only) {
      for (std::int64_t i = 0; i < tasks; ++i) task(context, i, 0);
      return;
    }
    while (static_cast<int>(helpers_.size()) < threads - 1 && !forked())
      helpers_.emplace_back(
          [this, thread = static_cast<int>(helpers_.size()) + 1, seen = job()] { help(thread, seen); });
    task_ = task, context_ = context, threads_ = threads, tasks_ = tasks;
    open_ = tasks;
    publish(job() + 1);
    work(job(), 0);
    for (int i = 0; open_ != 0; ++i) pause(i, open_, open_.load());
    for (int i = 0; i < shares(); ++i)
      tickets_[i].next |= 0xffffffffu;  // closed: nobody may claim while the next is written
  }

 private:
  /// Whether this is a child of the process that has the helpers: here whoever has tasks does them.
  bool forked() const { return getpid() != process_; }

  static constexpr int spins = 2000;  // some 20 microseconds, about what waking a sleeper takes

  static void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");  // `yield` does not wait on most processors
#endif
  }

  static constexpr std::uint64_t number_of(std::uint64_t ticket) { return ticket >> 32; }
  std::uint64_t job() const { return number_of(tickets_[0].next); }

  void publish(std::uint64_t number) {
    for (int i = 0; i < shares(); ++i) tickets_[i].next = number << 32;
    announced_ = number;
    announced_.notify_all();
  }

  template <class T>
  static void pause(int i, const std::atomic<T>& value, T old) {
    if (i < spins)
      relax();
    else if (value.load() == old && old != T{})
      value.wait(old);
  }

  /// Takes tasks of job `number` until none is left.
  void work(std::uint64_t number, int thread) {
    for (int i = 0; i < shares(); ++i) {
      const int share = (thread + i) % shares();
      std::uint64_t ticket = tickets_[share].next;
      while (number_of(ticket) == number) {
        const Task task = task_;
        void* context = context_;
        const std::int64_t first = tasks_ * share / shares(), end = tasks_ * (share + 1) / shares();
        const std::int64_t chosen = first + static_cast<std::int64_t>(ticket & 0xffffffffu);
        if (chosen >= end || thread >= threads_) break;
        if (!tickets_[share].next.compare_exchange_weak(ticket, ticket + 1)) continue;
        task(context, chosen, thread);
        if (thread > 0) ThreadsCounts::settle();  // the caller does when its outputs end
        if (--open_ == 0) open_.notify_one();
        ticket = tickets_[share].next;
      }
    }
  }

  void help(int thread, std::uint64_t seen) {
    const FloatMode mode;  // else that of whoever started the thread
    while (true) {
      for (int i = 0; announced_ == seen; ++i) {
        if (i < spins)
          relax();
        else
          announced_.wait(seen);
      }
      if (stop_) return;
      seen = announced_;
      work(seen, thread);
    }
  }

  static constexpr int most_shares = 64;
  int shares() const { return std::min(threads_.load(), most_shares); }

  struct alignas(64) Ticket {
    std::atomic<std::uint64_t> next = 0;
  };

  const pid_t process_ = getpid();
  std::mutex mutex_;
  std::vector<std::thread> helpers_;
  std::atomic<bool> stop_ = false;
  Ticket tickets_[most_shares] = {};  ///< of the shares
  std::atomic<std::uint64_t> announced_ = 0;
  std::atomic<std::int64_t> open_ = 0, tasks_ = 0;
  std::atomic<int> threads_ = 1;
  std::atomic<Task> task_ = nullptr;
  std::atomic<void*> context_ = nullptr;
};

}  // namespace

void run_tasks(int threads, std::int64_t tasks, Task task, void* context) {
  const int team = static_cast<int>(std::clamp<std::int64_t>(tasks, 1, std::max(threads, 1)));
  if (team == 1) {
    for (std::int64_t i = 0; i < tasks; ++i) task(context, i, 0);
    return;
  }
  static Pool pool;
  pool.run(team, tasks, task, context);
}

}  // namespace halftone::cpu

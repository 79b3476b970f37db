#include "tests/cuda_host/fibres.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "halftone/tensor/error.hpp"
#include "tests/sanitizers.hpp"

#if !defined(__x86_64__) && !defined(HALFTONE_FIBRES_UCONTEXT)
#define HALFTONE_FIBRES_UCONTEXT
#endif
#if defined(HALFTONE_FIBRES_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(HALFTONE_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Under ThreadSanitizer this file is compiled without it and with HALFTONE_FIBRES_TSAN: its own data are no concern of
// the kernels, whose threads each get an identity and a stack of their own.
#if defined(HALFTONE_FIBRES_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace halftone::cuda_host {
constinit thread_local const Thread* current = nullptr;
namespace {

// Switching stacks.

#if !defined(HALFTONE_FIBRES_UCONTEXT)
extern "C" void halftone_switch_stack(void** from, void* to);
asm(R"(
.text
.hidden halftone_switch_stack
.globl halftone_switch_stack
.type halftone_switch_stack, @function
halftone_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size halftone_switch_stack, .-halftone_switch_stack
)");
#endif

constexpr std::size_t stack_bytes = 256 << 10;

struct Fibre {
  Fibre() = default;  ///< the host thread's own
  explicit Fibre(void (*entry)()) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    mapped = page + stack_bytes;
    memory = static_cast<std::byte*>(::mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0));
    if (memory == MAP_FAILED) throw std::bad_alloc();
    ::mprotect(memory, page, PROT_NONE);  // an overflow faults
    stack = memory + page;
    bytes = stack_bytes;
#if defined(HALFTONE_FIBRES_UCONTEXT)
    ::getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    ::makecontext(&context, entry, 0);
#else
    // Tops of stacks at the same place of their pages would share few cache lines.
    static std::atomic<unsigned> made = 0;
    auto** top = reinterpret_cast<void**>(stack + bytes - made++ * 320 % page) - 8;
    std::fill(top, top + 8, nullptr);  // six registers, where to go, and no way back
    top[6] = reinterpret_cast<void*>(entry);
    context = top;
#endif
  }
  ~Fibre() {
    if (mapped == 0) return;
#if defined(HALFTONE_ASAN)
    __asan_unpoison_memory_region(stack, bytes);
#endif
    ::munmap(memory, mapped);
  }
  Fibre(const Fibre&) = delete;

  std::byte *memory = nullptr, *stack = nullptr;
  std::size_t mapped = 0, bytes = 0;
#if defined(HALFTONE_FIBRES_UCONTEXT)
  ucontext_t context = {};
#else
  void* context = nullptr;
#endif
  void* fake_stack = nullptr;  ///< AddressSanitizer's
};

constinit thread_local Fibre *running = nullptr, *left = nullptr;

/// To be called by whoever has been switched to.
void arrived() {
#if defined(HALFTONE_ASAN)
  const void* bottom;
  std::size_t bytes;
  __sanitizer_finish_switch_fiber(running->fake_stack, &bottom, &bytes);
  if (!left->stack) {  // the host thread's own, known from now on
    left->stack = static_cast<std::byte*>(const_cast<void*>(bottom));
    left->bytes = bytes;
  }
#endif
}

void switch_to(Fibre& to) {
  Fibre& from = *running;
  if (&from == &to) return;
  running = &to;
  left = &from;
#if defined(HALFTONE_ASAN)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.bytes);
#endif
#if defined(HALFTONE_FIBRES_UCONTEXT)
  ::swapcontext(&from.context, &to.context);
#else
  halftone_switch_stack(&from.context, to.context);
#endif
  arrived();
}

// Who runs, for ThreadSanitizer.

#if defined(HALFTONE_FIBRES_TSAN)
constexpr unsigned life_sets = 2;  ///< taken by turns: neighbouring blocks are strangers to each other
struct Identity {
  void* tsan = __tsan_create_fiber(0);
  Identity() = default;
  ~Identity() { __tsan_destroy_fiber(tsan); }
  Identity(const Identity&) = delete;
};
void become(void* identity) { __tsan_switch_to_fiber(identity, __tsan_switch_to_fiber_no_sync); }
void* own_identity() { return __tsan_get_current_fiber(); }
void release(void* address) { __tsan_release(address); }
void acquire(void* address) { __tsan_acquire(address); }
#else
constexpr unsigned life_sets = 0;
struct Identity {
  void* tsan = nullptr;
};
void become(void*) {}
void* own_identity() { return nullptr; }
void release(void*) {}
void acquire(void*) {}
#endif

constexpr unsigned turns = std::max(life_sets, 1u);

void run_threads();

/// What a thread has for itself where its locals must not lie where another thread's do.
struct Life {
  Fibre fibre{run_threads};
  Identity identity;
};

struct Slot : Thread {
  Fibre* fibre = nullptr;  ///< from its start on
  Where where;             ///< it waits
  std::array<std::unique_ptr<Life>, life_sets> lives;
};

struct Warp {
  unsigned arrived = 0, turn = 0;
  Where where;
  Offer offers[2][32];            ///< of this meeting and the last one
  std::uint64_t met[turns] = {};  ///< an address for happens-before
};

struct FreeAligned {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{128}); }
};

std::string text_of(Where where) { return std::string(where.file) + ":" + std::to_string(where.line); }

class Runner {
 public:
  void run(const Grid& grid, const Schedule& schedule);

  void sync_block(Where where);
  void sync_warp(Where where);
  const Offer* meet_warp(const Offer& own, Where where);
  void run_thread();

  std::exception_ptr error;

 private:
  Slot& self() const { return *const_cast<Slot*>(static_cast<const Slot*>(current)); }
  void* sync_point() { return &met_[set_]; }
  void become_self() const {
    if constexpr (life_sets > 0) become(self().lives[set_]->identity.tsan);
  }

  Slot* choose();
  void go(Slot& next);
  void pass_on();
  void wake(Slot* first, std::size_t count);
  void open_barrier();
  Fibre& take_fibre(Slot& slot);
  void fail_in(Where where, Where others) const;
  std::string deadlock() const;

  const Grid* grid_ = nullptr;
  Schedule schedule_;
  std::minstd_rand random_;
  std::vector<Slot> slots_;
  std::vector<Warp> warps_;
  std::vector<Slot*> ready_, unstarted_;  ///< taken from the back
  unsigned at_barrier_ = 0, done_ = 0, set_ = 0;
  Where barrier_;
  std::unique_ptr<std::byte, FreeAligned> all_shared_;
  std::byte* shared_ = nullptr;  ///< the block's

  Fibre host_;
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> idle_;
  std::uint64_t launch_ = 0, finish_ = 0, met_[turns] = {};  ///< addresses for happens-before
};

thread_local std::unique_ptr<Runner> runner_of_thread;
constinit thread_local Runner* runner = nullptr;

/// A fibre: runs one thread after another.
void run_threads() {
  arrived();
  for (;;) runner->run_thread();
}

Fibre& Runner::take_fibre(Slot& slot) {
  if constexpr (life_sets > 0) {
    if (!slot.lives[set_]) slot.lives[set_] = std::make_unique<Life>();
    return slot.lives[set_]->fibre;
  }
  if (idle_.empty()) idle_.push_back(fibres_.emplace_back(std::make_unique<Fibre>(run_threads)).get());
  Fibre& fibre = *idle_.back();
  idle_.pop_back();
  return fibre;
}

Slot* Runner::choose() {
  const std::size_t count = ready_.size() + unstarted_.size();
  if (count == 0) return nullptr;
  std::size_t i = ready_.empty() ? count - 1 : ready_.size() - 1;
  if (schedule_.order == Order::random) i = random_() % count;
  auto& from = i < ready_.size() ? ready_ : unstarted_;
  if (i >= ready_.size()) i -= ready_.size();
  std::swap(from[i], from.back());
  Slot* next = from.back();
  from.pop_back();
  return next;
}

void Runner::go(Slot& next) {
  if (!next.fibre) next.fibre = &take_fibre(next);
  current = &next;
  switch_to(*next.fibre);
}

/// Leaves a thread that waits for whoever can go on, and returns when it is resumed.
void Runner::pass_on() {
  Slot* next = choose();
  if (!next) throw Failure(deadlock());
  go(*next);
  become_self();
}

void Runner::run_thread() {
  become_self();
  acquire(&launch_);
  try {
    grid_->entry(grid_->arguments, shared_);
  } catch (...) {
    error = std::current_exception();
  }
  release(&finish_);
  ++done_;
  if (at_barrier_ > 0 && at_barrier_ + done_ == grid_->threads) open_barrier();  // nobody waits for those that ended
  if (life_sets == 0) idle_.push_back(running);
  Slot* next = error ? nullptr : choose();
  if (next) return go(*next);
  if (!error && done_ < grid_->threads) error = std::make_exception_ptr(Failure(deadlock()));
  switch_to(host_);
}

/// Lets those of `count` threads that wait go on.
void Runner::wake(Slot* first, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    Slot& slot = first[schedule_.order == Order::forward ? count - 1 - i : i];
    if (!slot.where.file) continue;
    slot.where = {};
    ready_.push_back(&slot);
  }
}

void Runner::open_barrier() {
  at_barrier_ = 0;
  wake(slots_.data(), grid_->threads);
}

void Runner::fail_in(Where where, Where others) const {
  throw Failure("thread " + std::to_string(current->index) + " of block " + std::to_string(current->block) +
                " waits at " + text_of(where) + " while others wait at " + text_of(others));
}

std::string Runner::deadlock() const {
  std::string text = "no thread of block " + std::to_string(slots_[0].block) + " can go on:";
  std::vector<Where> told;
  for (const Slot& slot : std::span(slots_).first(grid_->threads)) {
    if (!slot.where.file || told.size() == 4 || std::find(told.begin(), told.end(), slot.where) != told.end()) continue;
    told.push_back(slot.where);
    text += " thread " + std::to_string(slot.index) + " waits at " + text_of(slot.where) + ",";
  }
  return text + " " + std::to_string(done_) + " have ended";
}

void Runner::sync_block(Where where) {
  if (at_barrier_ > 0 && barrier_ != where) fail_in(where, barrier_);
  barrier_ = self().where = where;
  release(sync_point());
  if (++at_barrier_ + done_ == grid_->threads) open_barrier();
  pass_on();
  acquire(sync_point());
}

void Runner::sync_warp(Where where) {
  void* const point = &warps_[current->index / 32].met[set_];
  release(point);
  meet_warp({}, where);
  acquire(point);
}

const Offer* Runner::meet_warp(const Offer& own, Where where) {
  Warp& warp = warps_[current->index / 32];
  if (warp.arrived > 0 && warp.where != where) fail_in(where, warp.where);
  warp.where = self().where = where;
  Offer* offers = warp.offers[warp.turn % 2];
  offers[current->index % 32] = own;
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    ++warp.turn;
    wake(&slots_[current->index / 32 * 32], 32);
  }
  pass_on();
  return offers;
}

void Runner::run(const Grid& grid, const Schedule& schedule) {
  grid_ = &grid;
  schedule_ = schedule;
  random_.seed(schedule.seed);
  if (slots_.size() < grid.threads) {
    slots_ = std::vector<Slot>(grid.threads);
    warps_.resize((grid.threads + 31) / 32);
  }
  for (auto* list : {&ready_, &unstarted_}) list->reserve(grid.threads);
  fibres_.reserve(grid.threads);
  idle_.reserve(grid.threads);
  running = &host_;

  // For ThreadSanitizer each block's own: a place that two blocks have in turn would look like a race.
  const std::size_t shared_blocks = life_sets > 0 ? grid.blocks : 1;
  const std::size_t shared_bytes = shared_blocks * grid.shared;
  all_shared_.reset(static_cast<std::byte*>(::operator new (shared_bytes, std::align_val_t{128})));
  const auto fill_shared = [&] { std::memset(all_shared_.get(), 0xff, shared_bytes); };
  fill_shared();

  std::vector<unsigned> order(schedule.order == Order::random ? grid.blocks : 0);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random_);

  void* const host_identity = own_identity();
  release(&launch_);
  for (unsigned turn = 0; turn < grid.blocks && !error; ++turn) {
    const unsigned block = schedule.order == Order::forward   ? turn
                           : schedule.order == Order::reverse ? grid.blocks - 1 - turn
                                                              : order[turn];
    shared_ = all_shared_.get() + (life_sets > 0 ? turn * grid.shared : 0);
    if (life_sets == 0 && turn > 0) fill_shared();
    set_ = turn % turns;
    at_barrier_ = done_ = 0;
    for (unsigned i = 0; i < grid.threads; ++i) {
      Slot& slot = slots_[i];
      static_cast<Thread&>(slot) = {i, block, grid.blocks};
      slot.fibre = nullptr;
      unstarted_.push_back(&slots_[schedule.order == Order::reverse ? i : grid.threads - 1 - i]);
    }
    go(*choose());
    become(host_identity);
  }
  if constexpr (life_sets > 0) {
    for (const Slot& slot : std::span(slots_).first(grid.threads)) {
      if (!error || !slot.fibre) continue;
      become(slot.lives[set_]->identity.tsan);
      release(&finish_);
    }
    become(host_identity);
  }
  acquire(&finish_);
  current = nullptr;
}

}  // namespace

void sync_block(Where where) { runner->sync_block(where); }
void sync_warp(Where where) { runner->sync_warp(where); }
const Offer* meet_warp(const Offer& own, Where where) { return runner->meet_warp(own, where); }

void run_grid(const Grid& grid, const Schedule& schedule) {
  if (!runner) {
    runner_of_thread = std::make_unique<Runner>();
    runner = runner_of_thread.get();
  }
  runner->run(grid, schedule);
  if (const std::exception_ptr error = runner->error) {
    runner = nullptr;
    runner_of_thread.reset();  // threads that still wait are given up
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& e) {
      throw Failure("kernel " + std::string(grid.kernel) + ": " + e.what());
    }
  }
}

}  // namespace halftone::cuda_host

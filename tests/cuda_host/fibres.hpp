#pragma once
#include <cstddef>
#include <cstdint>

// Runs grids of CUDA blocks on the calling thread. The threads of a block are fibres that change where they wait; one
// that never waits is a plain call. In what order they run is a choice, since right results do not depend on it.
namespace halftone::cuda_host {

enum class Order : std::uint8_t { forward, reverse, random };
struct Schedule {
  Order order = Order::forward;
  std::uint32_t seed = 1;
};

struct Grid {
  const char* kernel;  ///< its name, for messages
  unsigned blocks, threads;
  std::size_t shared;  ///< bytes, 0xff before each block
  void (*entry)(const void* arguments, void* shared);
  const void* arguments;
};

/// Calls `entry` once for each thread of each block. A Failure names the kernel and what it throws, or which threads
/// wait for ever or meet in different places.
void run_grid(const Grid& grid, const Schedule& schedule);

/// A line of a kernel.
struct Where {
  const char* file = nullptr;
  int line = 0;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator==(const Where&) const = default;
};

/// The thread that runs.
struct Thread {
  unsigned index = 0, block = 0, blocks = 0;
};
extern constinit thread_local const Thread* current;

/// Waits for all threads of the block that have not ended, and orders their memory.
void sync_block(Where where);

/// Waits for the 32 threads of the warp, and orders their memory.
void sync_warp(Where where);

/// What a lane brings to a meeting of its warp.
struct alignas(16) Offer {
  std::byte bytes[48];
};

/// Waits for all 32 lanes, without ordering their memory, and returns their offers; they last until the lane's next
/// meeting.
const Offer* meet_warp(const Offer& own, Where where);

}  // namespace halftone::cuda_host

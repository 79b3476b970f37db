#include "tests/cuda_host/fibres.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "halftone/tensor/error.hpp"
#include "kernels/cuda/launch.hpp"
#include "tests/cuda_host/driver.hpp"
#include "tests/kernels/harness.hpp"
#include "tests/sanitizers.hpp"

namespace halftone::cuda_host {
namespace {

using cuda::code_of;
using cuda::NoShared;

const std::vector<Schedule> schedules = {{}, {Order::reverse}, {Order::random, 1}, {Order::random, 2}};

template <class Kernel>
void run(const Kernel& kernel, unsigned blocks, const Schedule& schedule = {}) {
  const auto code = code_of<Kernel>();
  run_grid({"tested", blocks, code.threads, code.shared, &cuda::entry<Kernel>, &kernel}, schedule);
}

/// What a grid fails with.
template <class Kernel>
std::string failure_of(const Kernel& kernel, const Schedule& schedule = {}) {
  try {
    run(kernel, 2, schedule);
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "none";
}

struct Sums {
  static constexpr unsigned threads = 96;
  struct Shared {
    float parts[3];
  };
  const float* x;
  float* sums;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const std::int64_t i = cuda::block_index() * threads + cuda::thread_index();
    const float sum = cuda::block_sum<threads>(x[i], shared.parts);
    const float again = cuda::block_sum<threads>(x[i], shared.parts);
    sums[i] = sum == again ? sum : NAN;
  }
};

TEST(Fibres, SumsHaveTheSameBitsInEveryOrder) {
  constexpr unsigned blocks = 5;
  const std::vector<float> x = test::random_values(blocks * Sums::threads, 1);
  std::vector<float> first;
  for (const Schedule& schedule : schedules) {
    std::vector<float> sums(x.size(), NAN);
    run(Sums{x.data(), sums.data()}, blocks, schedule);
    for (unsigned block = 0; block < blocks; ++block) {
      double sum = 0;
      for (unsigned i = 0; i < Sums::threads; ++i) sum += x[block * Sums::threads + i];
      for (unsigned i = 0; i < Sums::threads; ++i) {
        EXPECT_NEAR(sums[block * Sums::threads + i], sum, 1e-5);
        EXPECT_EQ(sums[block * Sums::threads + i], sums[block * Sums::threads]);
      }
    }
    if (first.empty()) first = sums;
    EXPECT_EQ(sums, first);
  }
}

TEST(Fibres, GridsRunOnSeveralThreadsAtOnce) {
  const std::vector<float> x(20 * Sums::threads, 1);
  std::vector<std::vector<float>> sums(3, std::vector<float>(x.size()));
  std::vector<std::thread> threads;
  for (auto& to : sums) threads.emplace_back([&] { run(Sums{x.data(), to.data()}, 20, {Order::random}); });
  for (auto& thread : threads) thread.join();
  for (const auto& to : sums) EXPECT_EQ(to, std::vector<float>(x.size(), Sums::threads));
}

struct Reversed {
  static constexpr unsigned threads = 64;
  struct Shared {
    std::uint32_t numbers[threads];
  };
  std::uint32_t* out;
  bool waits;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const unsigned i = cuda::thread_index();
    shared.numbers[i] = i;
    if (waits) cuda::sync_block();
    out[cuda::block_index() * threads + i] = shared.numbers[threads - 1 - i];
  }
};

#if !defined(HALFTONE_TSAN)
TEST(Fibres, AMissingBarrierShows) {
  std::set<std::vector<std::uint32_t>> results, without;
  for (const Schedule& schedule : schedules) {
    std::vector<std::uint32_t> out(2 * Reversed::threads);
    run(Reversed{out.data(), true}, 2, schedule);
    results.insert(out);
    run(Reversed{out.data(), false}, 2, schedule);
    without.insert(out);
  }
  EXPECT_EQ(results.size(), 1u);
  EXPECT_EQ(*results.begin()->begin(), Reversed::threads - 1);
  EXPECT_GE(without.size(), 3u);
  for (const auto& out : without)
    EXPECT_TRUE(std::count(out.begin(), out.end(), ~0u)) << "shared memory was not filled";
}
#else
TEST(FibresDeathTest, AMissingBarrierIsARace) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  std::vector<std::uint32_t> out(2 * Reversed::threads);
  run(Reversed{out.data(), true}, 2);
  EXPECT_EXIT((run(Reversed{out.data(), false}, 2), std::exit(0)), testing::ExitedWithCode(66), "data race");
}
#endif

struct ReversedInWarps {
  static constexpr unsigned threads = 96;
  struct Shared {
    std::uint32_t numbers[threads];
  };
  std::uint32_t* out;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const unsigned i = cuda::thread_index();
    shared.numbers[i] = i;
    cuda::sync_warp();
    out[i] = shared.numbers[i ^ 31];
  }
};

TEST(Fibres, WarpsWaitForTheirOwnThreads) {
  for (const Schedule& schedule : schedules) {
    std::vector<std::uint32_t> out(ReversedInWarps::threads);
    run(ReversedInWarps{out.data()}, 1, schedule);
    for (unsigned i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], i ^ 31);
  }
}

struct Divergent {
  static constexpr unsigned threads = 64;
  using Shared = NoShared;
  int how;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const unsigned i = cuda::thread_index();
    if (how == 0 && i == 7) return;  // nobody waits for it
    if (how == 1 && i < 32) cuda::sync_block();
    if (how == 2 && i == 40) return;
    if (how >= 2) cuda::shuffle_xor(1, 1);
    if (how == 3 && i == 5) throw Failure("five");
    cuda::sync_block();
  }
};

TEST(Fibres, DivergentThreadsAreNamed) {
  for (const Schedule& schedule : schedules) {
    EXPECT_EQ(failure_of(Divergent{0}, schedule), "none");
    const std::string barrier = failure_of(Divergent{1}, schedule);
    EXPECT_NE(barrier.find("kernel tested: thread "), std::string::npos) << barrier;
    EXPECT_NE(barrier.find("tests/cuda_host/fibres_test.cpp:"), std::string::npos) << barrier;
    const std::string warp = failure_of(Divergent{2}, schedule);
    EXPECT_NE(warp.find("no thread of block "), std::string::npos) << warp;
    EXPECT_NE(warp.find("thread 32 waits at "), std::string::npos) << warp;
    EXPECT_EQ(failure_of(Divergent{3}, schedule), "kernel tested: five");
    EXPECT_EQ(failure_of(Divergent{0}, schedule), "none");  // and goes on afterwards
  }
}

struct Counted {
  static constexpr unsigned threads = 32;
  using Shared = NoShared;
  std::int64_t* sum;
  std::int32_t *least, *same;
  float* largest;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const auto i = static_cast<std::int32_t>(cuda::block_index() * threads + cuda::thread_index());
    cuda::atomic_add(sum, i);
    cuda::atomic_min(least, 50 - i);
    cuda::atomic_max(largest, static_cast<float>(i));
    cuda::store_same(same, 3);
    const double exchanged = cuda::shuffle_xor(static_cast<double>(i), 3);
    if (exchanged != (i ^ 3)) cuda::atomic_min(least, -1000);
  }
};

TEST(Fibres, AtomicsAndShuffles) {
  std::int64_t sum = 0;
  std::int32_t least = 100, same = 0;
  float largest = 0;
  run(Counted{&sum, &least, &same, &largest}, 3, {Order::random});
  EXPECT_EQ(sum, 95 * 96 / 2);
  EXPECT_EQ(least, 50 - 95);
  EXPECT_EQ(largest, 95);
  EXPECT_EQ(same, 3);
}

#if defined(HALFTONE_ASAN)
struct Overrun {
  static constexpr unsigned threads = 32;
  struct Shared {
    float numbers[threads];
  };
  int beyond;
  HALFTONE_DEVICE void operator()(Shared& shared) const {
    float* const numbers = shared.numbers;
    numbers[cuda::thread_index() + static_cast<unsigned>(beyond)] = 1;
  }
};

TEST(FibresDeathTest, OverrunsOfSharedMemoryAreSeen) {
  run(Overrun{0}, 1);
  EXPECT_DEATH(run(Overrun{1}, 1), "heap-buffer-overflow");
}
#endif

/// d [16, 8 blocks wide] = a [16, k] b [k, 8], a as rows or (transposed) as columns, through load_matrices.
template <class Format, bool transposed>
struct Product {
  static constexpr unsigned threads = 32;
  struct Shared {
    cuda::Pack<std::uint16_t, 8> a[16][2], b[8][2];
  };
  const std::uint16_t *a, *b;
  float* d;
  int k;

  HALFTONE_DEVICE void operator()(Shared& shared) const {
    const auto lane = static_cast<int>(cuda::lane_index());
    float sums[4] = {};
    for (int first = 0; first < k; first += 16) {
      for (int i = lane; i < 256; i += 32) {
        const int row = i / 16, column = i % 16;
        shared.a[row][column / 8].at[column % 8] =
            transposed ? a[(first + row) * 16 + column] : a[row * k + first + column];
        if (row < 8) shared.b[row][column / 8].at[column % 8] = b[row * k + first + column];
      }
      cuda::sync_block();
      std::uint32_t of_a[4], of_b[4], two[2];
      const int matrix = lane / 8, down = transposed ? matrix / 2 : matrix % 2,
                right = transposed ? matrix % 2 : matrix / 2;
      cuda::load_matrices<transposed>(of_a, &shared.a[down * 8 + lane % 8][right]);
      cuda::load_matrices<false>(of_b, &shared.b[lane % 8][matrix % 2]);
      two[0] = of_b[0], two[1] = of_b[1];
      cuda::multiply_add<Format>(sums, of_a, two);
      cuda::sync_block();
    }
    for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
  }
};

template <class Format, bool transposed>
void check_product(const Schedule& schedule) {
  constexpr std::size_t k = 64;
  std::vector<std::uint16_t> a, b;
  for (const float x : test::random_values(16 * k, 1)) a.push_back(Format::encode(x));
  for (const float x : test::random_values(8 * k, 2)) b.push_back(Format::encode(x));
  std::vector<float> d(16 * 8, NAN);
  run(Product<Format, transposed>{a.data(), b.data(), d.data(), k}, 1, schedule);
  for (std::size_t m = 0; m < 16; ++m)
    for (std::size_t n = 0; n < 8; ++n) {
      double sum = 0, size = 0;
      for (std::size_t l = 0; l < k; ++l) {
        const double product =
            double{Format::decode(transposed ? a[l * 16 + m] : a[m * k + l])} * double{Format::decode(b[n * k + l])};
        sum += product;
        size += std::abs(product);
      }
      EXPECT_NEAR(d[m * 8 + n], sum, (k + 1) * 0x1p-24 * size) << m << " " << n;
    }
}

TEST(Fibres, ProductsOfTensorCores) {
  for (const Schedule& schedule : schedules) {
    check_product<F16, false>(schedule);
    check_product<BF16, false>(schedule);
    check_product<F16, true>(schedule);
    check_product<BF16, true>(schedule);
  }
}

/// One product whose fragments lie as CuTe's layouts of SM80_16x8x16 say: a ((4,8),(2,2,2)):((32,1),(16,8,128)) in
/// m + 16 k, b ((4,8),(2,2)):((16,1),(8,64)) in n + 8 k, d ((4,8),(2,2)):((32,1),(16,8)) in m + 16 n.
struct Laid {
  static constexpr unsigned threads = 32;
  using Shared = NoShared;
  const std::uint16_t *a, *b;
  float* d;

  HALFTONE_DEVICE void operator()(Shared&) const {
    const unsigned t = cuda::lane_index() % 4, g = cuda::lane_index() / 4;
    const auto pair = [](std::uint32_t low, std::uint32_t high) { return low | high << 16; };
    std::uint32_t of_a[4], of_b[2];
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned at = 32 * t + g + 8 * (r % 2) + 128 * (r / 2);
      of_a[r] = pair(a[at], a[at + 16]);
    }
    for (unsigned r = 0; r < 2; ++r) {
      const unsigned at = 16 * t + g + 64 * r;
      of_b[r] = pair(b[at], b[at + 8]);
    }
    float sums[4] = {1, 1, 1, 1};
    cuda::multiply_add<F16>(sums, of_a, of_b);
    for (unsigned i = 0; i < 4; ++i) d[32 * t + g + 16 * (i % 2) + 8 * (i / 2)] = sums[i];
  }
};

TEST(Fibres, FragmentsLieAsCuTeSays) {
  std::vector<std::uint16_t> a, b;
  for (const float x : test::random_integers(256, 1)) a.push_back(F16::encode(x));
  for (const float x : test::random_integers(128, 2)) b.push_back(F16::encode(x));
  std::vector<float> d(128, NAN);
  run(Laid{a.data(), b.data(), d.data()}, 1);
  for (std::size_t m = 0; m < 16; ++m)
    for (std::size_t n = 0; n < 8; ++n) {
      float sum = 1;
      for (std::size_t k = 0; k < 16; ++k) sum += F16::decode(a[m + 16 * k]) * F16::decode(b[n + 8 * k]);
      EXPECT_EQ(d[m + 16 * n], sum) << m << " " << n;
    }
}

struct Increment {
  static constexpr unsigned threads = 32;
  using Shared = NoShared;
  std::int32_t* x;
  bool fails = false;

  HALFTONE_DEVICE void operator()(Shared&) const {
    if (fails) throw Failure("it fails");
    ++x[cuda::block_index() * threads + cuda::thread_index()];
  }
};

/// A driver with 64 integers in device memory and as many in pinned memory.
struct Integers {
  static constexpr std::size_t count = 64, bytes = count * sizeof(std::int32_t);
  std::unique_ptr<cuda::Driver> driver = make_driver(0, Schedule{});
  std::int32_t* device = static_cast<std::int32_t*>(driver->allocate(bytes));
  std::int32_t* pinned = static_cast<std::int32_t*>(driver->allocate_pinned(bytes));

  Integers() { std::fill(pinned, pinned + count, 0); }
  ~Integers() {
    driver->free(device);
    driver->free_pinned(pinned);
  }
  void copy_in() { driver->copy_in(device, pinned, bytes); }
  void copy_out() { driver->copy_out(pinned, device, bytes); }
  void increment(bool fails = false) {
    const Increment kernel{device, fails};
    driver->launch(code_of<Increment>(), 2, &kernel);
  }
};

TEST(HostDriver, WorkIsDoneWhenSomebodyWaits) {
  Integers i;
  const cuda::Driver::Event event = i.driver->make_event();
  i.driver->clear(i.device, i.bytes);
  i.increment();
  i.copy_out();
  i.driver->record(event);
  i.increment();
  i.copy_out();
  EXPECT_EQ(i.pinned[0], 0);
  i.driver->wait(event);
  EXPECT_EQ(i.pinned[63], 1);  // and no more than it waited for
  i.driver->wait(event);
  EXPECT_EQ(i.pinned[63], 1);
  i.driver->synchronize();
  EXPECT_EQ(i.pinned[63], 2);
  EXPECT_EQ(i.driver->counts.waits, 2);
  EXPECT_EQ(i.driver->counts.synchronizations, 1);
  EXPECT_EQ(i.driver->counts.allocations, 2);
  i.driver->free_event(event);
}

TEST(HostDriver, FreshMemoryHoldsNoZeros) {
  Integers i;
  i.copy_out();
  i.driver->synchronize();
  EXPECT_EQ(i.pinned[0], -1);
}

TEST(HostDriver, CapturedWorkIsDoneAgainAndAgain) {
  Integers i;
  i.copy_in();
  i.driver->begin_capture();
  i.increment();
  i.increment();
  EXPECT_THROW(i.driver->synchronize(), Failure);
  EXPECT_THROW(i.driver->allocate(1), Failure);
  const auto captured = i.driver->end_capture();
  for (int k = 0; k < 3; ++k) i.driver->replay(captured.get());
  i.copy_out();
  EXPECT_EQ(i.pinned[0], 0);
  i.driver->synchronize();
  EXPECT_EQ(i.pinned[0], 6);
}

TEST(HostDriver, FailuresSurfaceWhenSomebodyWaits) {
  Integers i;
  i.increment(true);
  for (int k = 0; k < 2; ++k) try {
      i.driver->synchronize();
      ADD_FAILURE();
    } catch (const Failure& failure) {
      EXPECT_NE(std::string(failure.what()).find("Increment: it fails"), std::string::npos) << failure.what();
    }
}

TEST(HostDriver, RefusesWhatADeviceCannotDo) {
  Integers i;
  auto code = code_of<Increment>();
  const Increment kernel{i.device};
  code.threads = 1025;
  EXPECT_THROW(i.driver->launch(code, 1, &kernel), Failure);
  code.threads = 32;
  EXPECT_THROW(i.driver->launch(code, 0, &kernel), Failure);
  code.shared = (227 << 10) + 1;
  EXPECT_THROW(i.driver->launch(code, 1, &kernel), Failure);
  std::int32_t pageable;
  EXPECT_THROW(i.driver->copy_in(i.device, &pageable, 4), Failure);
  EXPECT_THROW(i.driver->copy_out(i.pinned, i.device + 63, 5), Failure);
  EXPECT_THROW(i.driver->allocate(i.driver->facts().memory), Failure);
  EXPECT_THROW(cuda::make_driver(2), Error);
}

TEST(HostDriverDeathTest, TheHostCannotTouchDeviceMemory) {
  Integers i;
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile std::int32_t*>(i.device)), "");
  i.driver->synchronize();
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile std::int32_t*>(i.device)), "");
}

TEST(HostDriver, SchedulesHaveNames) {
  EXPECT_EQ(parse_schedule("forward").order, Order::forward);
  EXPECT_EQ(parse_schedule("reverse").order, Order::reverse);
  EXPECT_EQ(parse_schedule("random").order, Order::random);
  EXPECT_EQ(parse_schedule("random:77").seed, 77u);
  for (const char* wrong : {"", "sideways", "random:", "random:x", "random:1x"})
    EXPECT_THROW(parse_schedule(wrong), Error);
}

}  // namespace
}  // namespace halftone::cuda_host

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "halftone/halftone.hpp"
#include "tests/sanitizers.hpp"

#ifndef HALFTONE_SANITIZED

namespace {
std::atomic<std::int64_t> allocations = 0;
}

// All of this program's allocations pass here.
void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace halftone {
namespace {

TEST(Plan, RunsAWholeStepWithoutAllocating) {
  for (const char* name : {"lenet5", "resnet20"})
    for (Precision precision : {Precision::f32(), Precision::f16(), Precision::bf16()}) {
      precision.loss_scale = LossScale::fixed(1);  // a skipped step's reason is text
      const Net& net = net_by_name(name);
      Graph graph;
      const Value images = graph.input("images", {4, net.image.h, net.image.w, net.image.c});
      const Value labels = graph.input("labels", {4, 1, 1, 1}, DType::i32);
      Trainer trainer(cross_entropy(net.build(images, net.classes), labels),
                      {.precision = precision, .optimizer = adamw(), .accumulate = 2, .average_decay = 0.9f});
      Batch batch{.size = 4,
                  .images = std::vector<std::byte>(4 * sizeof(float) * static_cast<std::size_t>(net.image.elements())),
                  .labels = {0, 1, 2, 3}};
      trainer.step(batch);  // threads are made when they are first needed
      const std::int64_t before = allocations;
      for (int step = 0; step < 4; ++step) trainer.step(batch);
      EXPECT_EQ(allocations, before) << name << ' ' << precision.name;
      std::vector<int> some(100);
      EXPECT_GT(allocations + static_cast<std::int64_t>(some[0]), before);  // the control: the count counts
    }
}

}  // namespace
}  // namespace halftone

#endif

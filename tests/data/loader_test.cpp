#include "halftone/data/loader.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::error;

/// `count` images of 6 x 6 x 3 with random-looking pixels; label = index modulo 10.
std::shared_ptr<const Dataset> toy(int count = 103) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count) * 108);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * 2654435761u >> 13);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 10);
  return std::make_shared<const Dataset>(in_memory("toy", {1, 6, 6, 3}, pixels, labels));
}

std::vector<Batch> all(Epoch epoch) {
  std::vector<Batch> batches;
  while (const Batch* batch = epoch.next()) batches.push_back(*batch);
  return batches;
}

void expect_equal(const std::vector<Batch>& a, const std::vector<Batch>& b, std::size_t skipped = 0) {
  ASSERT_EQ(a.size(), b.size() + skipped);
  for (std::size_t i = 0; i < b.size(); ++i) {
    EXPECT_EQ(a[i + skipped].size, b[i].size);
    EXPECT_EQ(a[i + skipped].labels, b[i].labels);
    EXPECT_EQ(a[i + skipped].images, b[i].images);
  }
}

/// The numbers of the images in the order of an epoch, for a data set whose image i is filled with i.
std::vector<int> order(const Loader& loader, std::int64_t epoch) {
  std::vector<int> indices;
  for (const Batch& b : all(loader.epoch(epoch)))
    for (const std::byte p : b.images) indices.push_back(std::to_integer<int>(p));
  return indices;
}

std::shared_ptr<const Dataset> numbered(int count, Split split = Split::train) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(count));
  std::iota(pixels.begin(), pixels.end(), std::uint8_t{0});
  Dataset data = in_memory("numbered", {1, 1, 1, 1}, pixels, std::vector<std::int32_t>(pixels.size()));
  data.split = split;
  return std::make_shared<const Dataset>(std::move(data));
}

TEST(Loader, DoesNotDependOnWorkersOrPrefetch) {
  LoaderOptions options = {.batch = 10, .crop = 2, .flip = true, .cutout = 2, .workers = 0};
  const auto data = toy();
  const std::vector<Batch> expected = all(Loader(data, options).epoch(3));
  EXPECT_EQ(expected.size(), 10u);
  for (const int workers : {1, 2, 5})
    for (const int prefetch : {0, 1, 2, 7, 100}) {
      options.workers = workers;
      options.prefetch = prefetch;
      expect_equal(expected, all(Loader(data, options).epoch(3)));
    }
}

TEST(Loader, ResumesInTheMiddleOfAnEpoch) {
  const Loader loader(toy(), {.batch = 10, .crop = 2, .flip = true, .workers = 2});
  const std::vector<Batch> whole = all(loader.epoch(2));
  for (const std::int64_t first : {1, 6, 9, 10})
    expect_equal(whole, all(loader.epoch(2, first)), static_cast<std::size_t>(first));
}

TEST(Loader, ShufflesDifferentlyByEpochAndSeed) {
  const Loader loader(numbered(200), {.batch = 20});
  std::vector<int> first = order(loader, 0), second = order(loader, 1);
  EXPECT_EQ(first, order(loader, 0));
  EXPECT_NE(first, second);
  EXPECT_NE(first, order(Loader(numbered(200), {.batch = 20, .seed = 2}), 0));
  int fixed = 0;
  for (int i = 0; i < 200; ++i) fixed += first[static_cast<std::size_t>(i)] == i;
  EXPECT_LT(fixed, 10) << "a random permutation has about one fixed point";
  std::sort(first.begin(), first.end());
  for (int i = 0; i < 200; ++i) EXPECT_EQ(first[static_cast<std::size_t>(i)], i);
}

TEST(Loader, PermutesWithoutBias) {
  std::vector<int> count(24);
  for (std::int64_t epoch = 0; epoch < 2400; ++epoch) {
    const std::vector<int> o = order(Loader(numbered(4), {.batch = 4, .workers = 0}), epoch);
    std::vector<int> identity = {0, 1, 2, 3};
    std::size_t rank = 0;
    while (identity != o) std::next_permutation(identity.begin(), identity.end()), ++rank;
    ++count[rank];
  }
  for (const int c : count) EXPECT_NEAR(c, 100, 50);  // five standard deviations
}

TEST(Loader, KeepsTheOrderAndTheRestOfATestSet) {
  const Loader test(numbered(25, Split::test), {.batch = 10});
  EXPECT_EQ(test.batches(), 3);
  EXPECT_EQ(all(test.epoch(0)).back().size, 5);
  std::vector<int> expected(25);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order(test, 0), expected);
  EXPECT_EQ(Loader(numbered(25), {.batch = 10}).batches(), 2);
  EXPECT_EQ(Loader(numbered(25), {.batch = 10, .drop_last = false}).batches(), 3);
}

TEST(Loader, LimitTakesTheFirstImages) {
  const Loader loader(numbered(25), {.batch = 10, .limit = 10});
  EXPECT_EQ(loader.size(), 10);
  std::vector<int> o = order(loader, 0);
  EXPECT_LT(*std::max_element(o.begin(), o.end()), 10);
}

TEST(Loader, RefusesWrongOptions) {
  const auto data = numbered(25);
  EXPECT_EQ(error([&] { Loader(data, {.batch = 26}); }), "batch 26: numbered has 25 images");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 10, .limit = 9}); }), "batch 10: numbered has 9 images");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 10, .limit = 26}); }), "limit 26: numbered has 25 images");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 0}); }), "loader option batch is 0, it must be at least 1");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 1, .workers = -1}); }),
            "loader option workers is -1, it must be at least 0");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 1, .crop = 1}); }), "crop 1: the images of numbered have 1 x 1 pixels");
  EXPECT_EQ(error([&] {
              Loader(data, {.batch = 1, .crop = std::numeric_limits<int>::max(), .reflect = true, .view = {.dy = 1}});
            }),
            "crop 2147483647: the images of numbered have 1 x 1 pixels");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 1, .view = {.dy = 1}}); }),
            "loader option view: shifted by (1, 0) with a crop of 0, but the images of numbered have 1 x 1 pixels");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 1, .reflect = true}); }),
            "loader option reflect: there is no crop whose padding it could be");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 1, .alternate = true}); }),
            "loader option alternate: it says how to flip");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 1, .crop = 1, .view = {.dx = -1}}); }),
            "loader option view: a shifted one is reflected at the border, so crop must be too (reflect)");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 10}).epoch(0, 3); }), "batch 3 of numbered is asked for, there are 2");
  EXPECT_EQ(error([&] { Loader(data, {.batch = 10}).epoch(-1); }), "loader option epoch is -1, it must be at least 0");
}

/// One image of 5 x 4 x 2: channel 0 is 10 * y + 2 * x with the mean 23, which no pixel has; channel 1 is 200.
Dataset one_image() {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < 5; ++y)
    for (int x = 0; x < 4; ++x) pixels.insert(pixels.end(), {static_cast<std::uint8_t>(10 * y + 2 * x), 200});
  return in_memory("one", {1, 5, 4, 2}, pixels, {0});
}

std::vector<int> augmented(const LoaderOptions& options, std::int64_t epoch) {
  std::vector<int> values;
  Epoch batches = Loader(std::make_shared<const Dataset>(one_image()), options).epoch(epoch);
  for (const std::byte b : batches.next()->images) values.push_back(std::to_integer<int>(b));
  return values;
}

int value(int y, int x) { return y < 0 || y > 4 || x < 0 || x > 3 ? 23 : 10 * y + 2 * x; }

/// The (dy, dx, mirrored) whose view of the image this is.
std::vector<std::array<int, 3>> views(const std::vector<int>& image, int reach) {
  std::vector<std::array<int, 3>> found;
  for (int dy = -reach; dy <= reach; ++dy)
    for (int dx = -reach; dx <= reach; ++dx)
      for (const int mirrored : {0, 1}) {
        bool same = true;
        for (int y = 0; y < 5; ++y)
          for (int x = 0; x < 4; ++x)
            same &= image[static_cast<std::size_t>(y * 4 + x) * 2] == value(y + dy, (mirrored ? 3 - x : x) + dx) &&
                    image[static_cast<std::size_t>(y * 4 + x) * 2 + 1] == 200;
        if (same) found.push_back({dy, dx, mirrored});
      }
  return found;
}

TEST(Augmentation, EveryCropAndMirrorImageOccursAndNothingElse) {
  std::vector<int> seen(25 * 2);
  for (std::int64_t epoch = 0; epoch < 1000; ++epoch) {
    const auto found = views(augmented({.batch = 1, .crop = 2, .flip = true, .workers = 0}, epoch), 2);
    ASSERT_EQ(found.size(), 1u);
    ++seen[static_cast<std::size_t>(((found[0][0] + 2) * 5 + found[0][1] + 2) * 2 + found[0][2])];
  }
  for (const int count : seen) EXPECT_GT(count, 0);  // chance of a miss: 50 * (49/50)^1000 < 1e-7
}

TEST(Augmentation, OnlyWhatIsAskedForIsDone) {
  for (std::int64_t epoch = 0; epoch < 20; ++epoch) {
    EXPECT_EQ(views(augmented({.batch = 1, .workers = 0}, epoch), 2)[0], (std::array{0, 0, 0}));
    EXPECT_EQ(views(augmented({.batch = 1, .crop = 2, .workers = 0}, epoch), 2)[0][2], 0);
    const auto flipped = views(augmented({.batch = 1, .flip = true, .workers = 0}, epoch), 2)[0];
    EXPECT_EQ(flipped[0], 0);
    EXPECT_EQ(flipped[1], 0);
  }
}

int reflected_value(int y, int x) {
  const auto inside = [](int i, int n) { return i < 0 ? -i : i < n ? i : 2 * n - 2 - i; };
  return value(inside(y, 5), inside(x, 4));
}

TEST(Augmentation, ReflectsAtTheBorder) {
  std::array<bool, 25> seen = {};
  for (std::int64_t epoch = 0; epoch < 500; ++epoch) {
    const auto image = augmented({.batch = 1, .crop = 2, .reflect = true, .workers = 0}, epoch);
    int found = -1;
    for (int dy = -2; dy <= 2; ++dy)
      for (int dx = -2; dx <= 2; ++dx) {
        bool same = true;
        for (int y = 0; y < 5; ++y)
          for (int x = 0; x < 4; ++x)
            same &= image[static_cast<std::size_t>(y * 4 + x) * 2] == reflected_value(y + dy, x + dx);
        if (same) found = (dy + 2) * 5 + dx + 2;
      }
    ASSERT_GE(found, 0);
    seen[static_cast<std::size_t>(found)] = true;
  }
  EXPECT_TRUE(std::ranges::all_of(seen, std::identity()));
}

TEST(Augmentation, AlternatingImagesAreMirroredInEveryOtherEpoch) {
  const auto data = toy();
  const Loader loader(data, {.batch = 1, .shuffle = false, .flip = true, .alternate = true}), plain = loader.in_order();
  const std::vector<Batch> whole = all(plain.epoch(0)), mirrored = all(plain.in_order({.mirror = true}).epoch(0));
  const std::vector<Batch> first = all(loader.epoch(0)), second = all(loader.epoch(1)), third = all(loader.epoch(2));
  int flips = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    const bool flipped = first[i].images == mirrored[i].images;
    flips += flipped;
    EXPECT_TRUE(flipped || first[i].images == whole[i].images);
    EXPECT_EQ(second[i].images, flipped ? whole[i].images : mirrored[i].images);
    EXPECT_EQ(third[i].images, first[i].images);
  }
  EXPECT_GT(flips, 30);  // of 103, chance of fewer: 1e-5
  EXPECT_LT(flips, 73);
}

TEST(Augmentation, ViewsAreShiftedReflectedAndMirrored) {
  const Loader loader(std::make_shared<const Dataset>(one_image()), {.batch = 1, .crop = 2, .flip = true});
  float weights = 0;
  for (const View& view : six_views()) {
    const std::vector<Batch> batches = all(loader.in_order(view).epoch(3));
    for (int y = 0; y < 5; ++y)
      for (int x = 0; x < 4; ++x)
        EXPECT_EQ(std::to_integer<int>(batches[0].images[static_cast<std::size_t>(y * 4 + x) * 2]),
                  reflected_value(y + view.dy, (view.mirror ? 3 - x : x) + view.dx));
    weights += view.weight;
  }
  EXPECT_EQ(weights, 1);
}

TEST(Augmentation, CutoutBlanksOneSquareWithTheMean) {
  for (const int side : {1, 2, 3}) {
    std::size_t largest = 0;
    for (std::int64_t epoch = 0; epoch < 200; ++epoch) {
      const std::vector<int> image = augmented({.batch = 1, .cutout = side, .workers = 0}, epoch);
      int top = 5, left = 4, bottom = -1, right = -1;
      std::size_t blank = 0;
      for (int y = 0; y < 5; ++y)
        for (int x = 0; x < 4; ++x) {
          const int v = image[static_cast<std::size_t>(y * 4 + x) * 2];
          if (v == value(y, x)) continue;
          EXPECT_EQ(v, 23);
          ++blank;
          top = std::min(top, y), bottom = std::max(bottom, y), left = std::min(left, x), right = std::max(right, x);
        }
      largest = std::max(largest, blank);
      EXPECT_EQ(blank, static_cast<std::size_t>((bottom - top + 1) * (right - left + 1)));
      EXPECT_LE(bottom - top + 1, side);
      EXPECT_LE(right - left + 1, side);
    }
    EXPECT_EQ(largest, static_cast<std::size_t>(side * side));
  }
}

TEST(Augmentation, FillsFloatsWithTheExactMean) {
  const auto data =
      std::make_shared<const Dataset>(in_memory("floats", {1, 2, 2, 1}, std::vector<float>{1, 2, 3, 5}, {0}));
  bool filled = false;
  for (std::int64_t epoch = 0; epoch < 50; ++epoch) {
    const std::vector<Batch> batches = all(Loader(data, {.batch = 1, .crop = 1}).epoch(epoch));
    float values[4];
    std::memcpy(values, batches[0].images.data(), sizeof values);
    for (const float v : values) {
      EXPECT_TRUE(v == 1 || v == 2 || v == 3 || v == 5 || v == 2.75f);
      filled |= v == 2.75f;
    }
  }
  EXPECT_TRUE(filled);
}

TEST(Epoch, StopsEarlyWithoutHanging) {
  const Loader loader(toy(), {.batch = 1, .workers = 4, .prefetch = 3});
  for (int served = 0; served < 5; ++served) {
    Epoch epoch = loader.epoch(0);
    for (int i = 0; i < served; ++i) ASSERT_NE(epoch.next(), nullptr);
    Epoch moved = std::move(epoch);
    ASSERT_NE(moved.next(), nullptr);
    moved = loader.epoch(1);
    ASSERT_NE(moved.next(), nullptr);
  }
}

TEST(Epoch, OutlivesItsLoader) {
  Epoch epoch = Loader(toy(), {.batch = 10}).epoch(0);
  EXPECT_EQ(all(std::move(epoch)).size(), 10u);
}

TEST(Epoch, StaysAtTheEnd) {
  Epoch epoch = Loader(toy(10), {.batch = 10}).epoch(0);
  EXPECT_NE(epoch.next(), nullptr);
  EXPECT_EQ(epoch.next(), nullptr);
  EXPECT_EQ(epoch.next(), nullptr);
}

TEST(Epoch, RunsAheadNoFurtherThanAsked) {
  std::atomic<std::int64_t> made = 0;
  Epoch epoch([&](std::int64_t, Batch&) { ++made; }, 0, 1000, 3, 4);
  for (int served = 1; served <= 20; ++served) {
    epoch.next();
    EXPECT_LE(made, served + 4);
  }
}

TEST(Epoch, RethrowsWhatAWorkerThrew) {
  for (const int workers : {0, 1, 3}) {
    Epoch epoch(
        [](std::int64_t b, Batch& batch) {
          if (b == 5) throw std::runtime_error("batch five");
          batch.size = b;
        },
        2, 9, workers, 2);
    for (std::int64_t b = 2; b < 5; ++b) EXPECT_EQ(epoch.next()->size, b);
    for (int again = 0; again < 2; ++again) EXPECT_THROW(epoch.next(), std::runtime_error);
  }
}

}  // namespace
}  // namespace halftone

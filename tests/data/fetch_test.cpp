#include "halftone/data/fetch.hpp"

#include <gtest/gtest.h>

#include "halftone/data/dataset.hpp"
#include "tests/data/files.hpp"

namespace halftone {
namespace {

using testing::contains;
using testing::error;

/// Downloads from files on this machine.
struct Fetch : ::testing::Test {
  TemporaryFolder from, to;
  FetchOptions options = {.base_url = "file://" + (from / "").string()};

  void SetUp() override {
    if (contains(problem(), "without libcurl")) GTEST_SKIP() << "built without libcurl";
  }
  std::string problem() const {
    return error([&] { fetch("mnist", to / "", options); });
  }
};

TEST_F(Fetch, NamesAFileThatIsNotThere) {
  EXPECT_TRUE(contains(problem(), options.base_url + "/train-images-idx3-ubyte.gz cannot be downloaded: "));
  EXPECT_THROW(fetch("mnist", to / "a/b", options), Failure);
  EXPECT_THROW(fetch("cifar10", to / "c", options), Failure);
  EXPECT_TRUE(to.empty()) << "nor folders";
}

TEST_F(Fetch, RefusesAWrongChecksumAndLeavesNothing) {
  testing::write(from / "train-images-idx3-ubyte.gz", "something else");
  EXPECT_EQ(testing::file_error([&] { fetch("mnist", to / "", options); }),
            (to / "train-images-idx3-ubyte.gz").string() +
                " did not arrive intact: its checksum is not that of train-images-idx3-ubyte.gz");
  EXPECT_TRUE(to.empty());
}

TEST_F(Fetch, StopsADownloadThatIsTooLong) {
  testing::write(from / "train-images-idx3-ubyte.gz", "");
  std::filesystem::resize_file(from / "train-images-idx3-ubyte.gz", 10000000);
  EXPECT_EQ(problem(), "train-images-idx3-ubyte.gz is larger than it should be");
  EXPECT_TRUE(to.empty());
}

TEST_F(Fetch, RefusesAnEmptyFile) {
  testing::write(from / "train-images-idx3-ubyte.gz", "");
  EXPECT_TRUE(contains(problem(), "train-images-idx3-ubyte.gz cannot be downloaded: it is empty"));
}

TEST_F(Fetch, WhatTheCallbackThrowsEndsTheDownload) {
  testing::write(from / "train-images-idx3-ubyte.gz", std::string(1000000, 'x'));
  struct Enough {};
  options.progress = [](std::string_view, std::int64_t, std::int64_t) { throw Enough(); };
  EXPECT_THROW(fetch("mnist", to / "", options), Enough);
  EXPECT_TRUE(to.empty());
}

TEST_F(Fetch, RefusesAnArchiveThatIsNone) {
  testing::write(from / "cifar-10-binary.tar.gz", "<html>404</html>");
  EXPECT_TRUE(contains(error([&] { fetch("cifar10", to / "", options); }), "ends early"));
  EXPECT_TRUE(to.empty());
}

TEST_F(Fetch, BringsRealFilesAndKeepsThem) {
  const auto real = testing::real_data("mnist", "train-images-idx3-ubyte.gz");
  if (real.empty()) GTEST_SKIP() << "$HALFTONE_DATA/mnist is absent";
  std::int64_t calls = 0;
  options = {.base_url = "file://" + std::filesystem::absolute(real).string(),
             .progress = [&](std::string_view, std::int64_t done, std::int64_t) { calls += done > 0; }};
  EXPECT_EQ(fetch("mnist", to / "", options), to / "");
  EXPECT_GT(calls, 0);
  EXPECT_EQ(load_dataset("mnist", Split::test, to / "").size(), 10000);
  options.base_url = "file:///nowhere";
  EXPECT_EQ(fetch("mnist", to / "", options), to / "") << "intact files are not downloaded again";
}

TEST(FetchName, MustBeKnown) {
  EXPECT_EQ(error([] { fetch("digits"); }),
            "data set 'digits' cannot be fetched; there are mnist, fashion-mnist and cifar10");
}

}  // namespace
}  // namespace halftone

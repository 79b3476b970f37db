#ifdef HALFTONE_HAS_CUBLAS
#include "kernels/cuda/cublas.hpp"

#include <gtest/gtest.h>

#include "halftone/tensor/device.hpp"
#include "kernels/cuda/library.hpp"

// What can be known without a GPU. On one, `DenseKernels` hold its results to the reference like all others'.
namespace halftone::cuda {
namespace {

Convolution product(ConvProblem p, DType format = DType::f16) {
  return {p,
          Direction::forward,
          {{{{p.n, p.h, p.w, p.c}, format}, {{p.k, p.r, p.s, p.c}, format}}, {{p.n, p.p, p.q, p.k}, format}}};
}

TEST(Cublas, IsOpenedWithAllItsFunctions) {
  const std::string reason = why_no_cublas();
  if (reason.ends_with(" one")) GTEST_SKIP() << reason;  // nor has a toolkit
  EXPECT_EQ(reason, "");
}

TEST(Cublas, IsAskedAboutProductsOfMatricesAlone) {
  EXPECT_EQ(decline_product(product({.n = 128, .c = 400, .k = 120})), "");
  const ConvProblem pixels{.n = 2, .h = 5, .w = 7, .c = 8, .k = 16, .p = 5, .q = 7};
  EXPECT_EQ(decline_product(product(pixels)), "");
  const std::string reason = "no product of matrices as they lie in memory";
  ConvProblem strided = pixels, padded = pixels, grouped = pixels, windows = pixels;
  strided.stride_w = 2;
  strided.q = 4;
  padded.pad_h = 1;
  padded.p = 7;
  grouped.groups = 4;
  windows.r = 2;
  windows.p = 4;
  for (const ConvProblem& p : {strided, padded, grouped, windows}) EXPECT_EQ(decline_product(product(p)), reason);
  Convolution other = product(pixels);
  other.activation = Tanh();
  EXPECT_EQ(decline_product(other), "an activation other than relu");
}

}  // namespace
}  // namespace halftone::cuda
#endif

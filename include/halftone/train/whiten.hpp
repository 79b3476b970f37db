#pragma once
#include "halftone/data/dataset.hpp"
#include "halftone/graph/graph.hpp"

namespace halftone {

/// Gives the convolution weight `weight` [2 r s c, r, s, c] its first numbers and freezes it: the eigenvectors of the
/// second moments of the patches in the data's first `images` images, normalised by mean and deviation, each divided by
/// sqrt(eigenvalue + epsilon), the largest eigenvalue first, then their negatives. Throws Error for an unknown weight,
/// another shape and images of other channels or smaller than a patch.
void whiten(Graph graph, const std::string& weight, const Dataset& data, std::int64_t images = 5000,
            float epsilon = 5e-4f);

}  // namespace halftone

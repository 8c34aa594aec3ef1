// The kernels of every operation, once per instruction set.
#pragma once

#include "../dense_discrepancy/kernels.h"
#include "../farthest_first/kernels.h"
#include "../kmeans_plusplus/kernels.h"
#include "../pool_stats/kernels.h"

namespace dynal {

struct Kernels {
  dense_discrepancy::Kernels dense_discrepancy;
  farthest_first::Kernels farthest_first;
  kmeans_plusplus::Kernels kmeans_plusplus;
  pool_stats::Kernels pool_stats;
};

// The kernels of the active instruction set.
const Kernels& kernels();

}  // namespace dynal

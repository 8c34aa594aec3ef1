// The kernels of the dense discrepancy, as every instruction set has them.
#pragma once

#include "dense_discrepancy.h"

namespace dynal {
namespace dense_discrepancy {

struct Kernels {
  // Pixels of a block.
  int64_t (*block_pixels)(int64_t classes);

  // For blocks begin <= b < end of an image, sums[b] becomes the sum of ||p - q||_2^2 over the
  // pixels of block b. `scratch` has 2 (classes + 1) floats per pixel of a block.
  void (*sum_blocks)(const Maps& maps, int64_t begin, int64_t end, float* scratch, double* sums);
};

}  // namespace dense_discrepancy
}  // namespace dynal

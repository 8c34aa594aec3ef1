// Dense discrepancy: how far the softmax outputs of two models' maps are from each other.
//
// Nothing is checked here: see dynal_fast/ops/dense_discrepancy/__init__.py.
#pragma once

#include <cstdint>

#include "../common/dtype.h"

namespace dynal {
namespace dense_discrepancy {

// One image's logits by two models, (classes, pixels) each.
struct Maps {
  const void* logits;
  const void* other;
  Dtype dtype;  // of both: float32, float16 or bfloat16
  int64_t classes, pixels;
};

// The mean over the pixels of ||p - q||_2^2; NaN if a logit is not finite. It does not depend on
// the number of threads.
double mean_squared_distance(const Maps& maps, int threads);

}  // namespace dense_discrepancy
}  // namespace dynal

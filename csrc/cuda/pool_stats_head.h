// Pool statistics from features and a linear head, on Hopper.
#pragma once

#include "../pool_stats/pool_stats.h"

namespace dynal {
namespace pool_stats {
namespace hopper {

// Whether the head's weights fit into the shared memory of one cluster, which the current device
// can run.
bool head_fits(int64_t classes, int64_t width);

// Warps of a block, and bytes of shared memory it asks for with a head of that width that fits.
struct Resources {
  int warps;
  int64_t shared;
};
Resources head_resources(int64_t width);

// As pool_stats::update, of a batch of 16-bit features whose head fits. Rows of features and of
// weights lie at multiples of 16 bytes, the number of classes is even; no teacher, no logits
// tracked. Returns as soon as the kernel is in `stream`; throws std::runtime_error if it cannot be.
void update_from_features(const State& state, const Batch& batch, void* stream);

}  // namespace hopper
}  // namespace pool_stats
}  // namespace dynal

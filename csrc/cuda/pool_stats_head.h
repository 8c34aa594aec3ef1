// Pool statistics from features and a linear head, on Hopper.
#pragma once

#include "../pool_stats/pool_stats.h"

namespace dynal {
namespace pool_stats {
namespace hopper {

// Whether the head's weights fit into the shared memory of one cluster, and the current device can
// run such a cluster.
bool head_fits(int64_t classes, int64_t width);

// Warps of a block and its bytes of shared memory, for a head of this width that fits.
struct Resources {
  int warps;
  int64_t shared;
};
Resources head_resources(int64_t width);

// pool_stats::update for a batch of 16-bit features whose head fits. Rows of features and of
// weights are aligned to 16 bytes, and the number of classes is even. There is no teacher, and no
// mean of logits is tracked. Returns when the kernel is in `stream`; throws std::runtime_error if
// it cannot be launched.
void update_from_features(const State& state, const Batch& batch, void* stream);

}  // namespace hopper
}  // namespace pool_stats
}  // namespace dynal

// The CUDA kernel of the update from features, run by the model of Hopper.
#include "../csrc/cuda/pool_stats_head.cuh"
#include "../csrc/cuda/pool_stats_head.h"

namespace dynal {
namespace pool_stats {
namespace hopper {

bool head_fits(int64_t classes, int64_t width) { return fits(classes, width); }

Resources head_resources(int64_t width) {
  return {kThreads / 32, shared_bytes(width, stages_for(width))};
}

// Each call draws the number of clusters, the number of stages and the order of the threads.
void update_from_features(const State& state, const Batch& batch, void*) {
  static unsigned seed = 0;
  std::mt19937 draw(++seed);
  const int64_t width = batch.head.width;
  const int clusters = 1 + draw() % 3;
  const int few = draw() % 2 ? 1 : stages_for(width) - 3;
  const Parameters p(state, batch, 4 + draw() % few);
  if (shared_bytes(width, p.stages) > kSharedLimit) throw std::runtime_error("too much memory");
  const TensorMap features{static_cast<const uint16_t*>(batch.head.features), batch.rows, width,
                           kRows, kFeatureDepth};
  const TensorMap weights{static_cast<const uint16_t*>(batch.head.weight), state.classes, width,
                          kClasses, kWeightDepth};
  for (int i = 0; i < clusters; ++i) {
    Cluster(i, clusters, p.blocks, kThreads, draw()).run([&] {
      if (batch.dtype == Dtype::bfloat16) {
        update_from_features<Bf16>(p, features, weights);
      } else {
        update_from_features<F16>(p, features, weights);
      }
    });
  }
}

}  // namespace hopper
}  // namespace pool_stats
}  // namespace dynal

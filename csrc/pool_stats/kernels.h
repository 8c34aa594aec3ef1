// The kernels of the pool statistics, as every instruction set has them.
#pragma once

#include "pool_stats.h"

namespace dynal {
namespace pool_stats {

struct Kernels {
  // Floats of working memory that `update_rows` and `update_head_rows` need, aligned to 64 bytes.
  int64_t (*scratch_floats)(int64_t classes);
  int64_t (*head_scratch_floats)(int64_t classes, int64_t width);

  // Folds rows begin <= row < end of a batch of logits into the state. status (rows).
  void (*update_rows)(const State& state, const Batch& batch, const uint8_t* status, int64_t begin,
                      int64_t end, float* scratch);

  // Floats of a head's packed weights.
  int64_t (*packed_floats)(int64_t classes, int64_t width);

  // Packs the share of the weights of one of `threads`; `line` has room for head.width floats.
  void (*pack_weights)(const Head& head, Dtype dtype, int64_t classes, int thread, int threads,
                       float* packed, float* line);

  // `update_rows` for a batch of features; teacher_packed is null without a teacher.
  void (*update_head_rows)(const State& state, const Batch& batch, const uint8_t* status,
                           int64_t begin, int64_t end, const float* packed,
                           const float* teacher_packed, float* scratch);
};

}  // namespace pool_stats
}  // namespace dynal

// Pool statistics: fold a batch of logits into the state of its samples, in place.
//
// dynal_fast/ops/pool_stats/__init__.py describes the tensors and their update, and checks them. A
// null pointer stands for a tensor that this pass does not update.
#pragma once

#include <cstdint>

#include "../common/dtype.h"

namespace dynal {
namespace pool_stats {

constexpr int32_t kNonFinite = 1;
constexpr int32_t kDuplicate = 2;
constexpr int32_t kDropped = 0x7fffffff;
constexpr int64_t kMaxUnknownIds = 15;
// Where the mean of logits is tracked, a row with a logit beyond this counts as not finite.
constexpr float kLogitLimit = 0x1p40f;

// How logits become probabilities: of classes that exclude each other, or of labels that do not.
enum class Activation { softmax, sigmoid };

// What is kept of a sample with a target: see TRAINING in dynal_fast/ops/pool_stats/contract.py.
struct TrainingRow {
  float mean, m2, correct, flips, first_learned, margin_sum, error_sum, target;
};

struct State {
  int64_t num_samples, classes;
  const int32_t* pass_stamp;  // (1)
  int32_t* stamp;             // (samples)
  int64_t* unknown_ids;       // (1 + kMaxUnknownIds)

  int32_t* count;              // (samples)
  float* mean;                 // (samples, classes)
  float* m2;                   // (samples)
  float* class_m2;             // (samples, classes)
  float* entropy_sum;          // (samples)
  int32_t* logit_count;        // (samples)
  float* logit_mean;           // (samples, classes)
  float* logit_m2;             // (samples)
  void* label_counts;          // (samples, classes) of label_bytes each
  int32_t* increase_count;     // (samples)
  float* increase_sum;         // (samples)
  void* previous_output;       // (samples, classes) of output_bytes each
  void* output;                // (samples, classes) of output_bytes each
  void* latest_output;         // (samples, classes) of output_bytes each
  float* cycle_discrepancy;    // (samples)
  float* teacher_discrepancy;  // (samples)
  float* last_entropy;         // (samples)
  float* last_top;             // (samples)
  float* last_margin;          // (samples)
  int32_t* training_count;     // (samples)
  TrainingRow* training;       // (samples)
  int label_bytes, output_bytes;
  Activation activation;
};

// Dropout of a head's features, with masks that depend on the pass, the sample and the feature
// alone: see dynal_fast/ops/pool_stats/dropout.py.
struct Dropout {
  uint64_t key = 0;           // of the pass
  uint64_t first_sample = 0;  // the number of sample 0
  uint32_t below = 0;         // a feature whose random bits are below is dropped; 0: no dropout
  float scale = 1;            // of the others
};

// A linear head and its input. Without features there is no head.
struct Head {
  const void* features;  // (rows, width), or (samples, width) if rows are found by sample id
  const void* weight;    // (classes, width)
  const void* bias;      // (classes) or null
  int64_t width;
  Dtype dtype = Dtype::float32;  // of features
  bool by_id = false;
  Dropout dropout = {};
};

struct Batch {
  int64_t rows;
  const void* ids;  // (rows) of id_bytes each
  int id_bytes;
  Dtype dtype;                 // of logits, or of weight and bias
  const void* logits;          // (rows, classes), null with a head
  const void* teacher_logits;  // (rows, classes) or null
  Head head, teacher_head;
  const int64_t* targets;  // (rows), negative where there is none; or null
};

void update(const State& state, const Batch& batch, int threads);

// What is known of a row after claiming: only claimed rows are folded into the state.
enum RowStatus : uint8_t { claimed = 0, duplicate = 1, unknown = 2 };

}  // namespace pool_stats
}  // namespace dynal

// From the rows of a batch to the samples that are updated together.
#pragma once

#include "../common/elements.inl"
#include "layout.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

// Converts a row of logits to float32, at x. Returns what was subtracted: for the softmax, the
// maximum of a float64 row, else 0.
template <Activation activation>
inline float convert_row(const void* logits, Dtype dtype, int64_t classes, float* x) {
  if (dtype == Dtype::float64 && activation == Activation::sigmoid) {
    const double* from = static_cast<const double*>(logits);
    for (int64_t c = 0; c < classes; ++c) {  // NaN if not finite, never infinite if finite
      const double z = from[c] - from[c] + from[c];
      x[c] = (float)(z > __FLT_MAX__ ? __FLT_MAX__ : z < -__FLT_MAX__ ? -__FLT_MAX__ : z);
    }
    return 0;
  }
  if (dtype == Dtype::float64) {
    const double* from = static_cast<const double*>(logits);
    double top = from[0];
    bool finite = true;
    for (int64_t c = 0; c < classes; ++c) {
      top = from[c] > top ? from[c] : top;
      finite &= __builtin_fabs(from[c]) <= __DBL_MAX__;
    }
    for (int64_t c = 0; c < classes; ++c) {
      const double z = from[c] - top;
      x[c] = z > -1e30 ? (float)z : -1e30f;
    }
    if (!finite) x[0] = __builtin_nanf("");
    return (float)top;
  }
  halves_to_floats(static_cast<const uint16_t*>(logits), dtype, classes, x);
  return 0;
}

inline int64_t id_at(const Batch& batch, int64_t row) {
  if (batch.id_bytes == 4) return static_cast<const int32_t*>(batch.ids)[row];
  return static_cast<const int64_t*>(batch.ids)[row];
}

inline void prefetch_bytes(const void* first, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += kLineBytes) {
    __builtin_prefetch(static_cast<const char*>(first) + byte, 1);
  }
  __builtin_prefetch(static_cast<const char*>(first) + bytes - 1, 1);
}

// Gathers claimed rows one turn ahead of the update, and prefetches what that needs.
template <class Layout>
struct Gather {
  const State& state;
  const Batch& batch;
  const uint8_t* status;
  int64_t row, end;

  // At most two arrays per class are prefetched; few updates read more. Rows of a tile are short
  // and prefetched here, longer ones during the softmax and the update.
  void prefetch_state(Samples& samples) const {
    const char* arrays[2] = {};
    Rows* const rows[2] = {&samples.early, &samples.late};
    int found = 0;
    const auto find = [&](const void* array, int64_t bytes) {
      if (!array || found == 2) return;
      rows[found]->item_bytes = bytes;
      arrays[found++] = static_cast<const char*>(array);
    };
    find(state.mean, 4);
    find(state.output, state.output_bytes);
    find(state.previous_output, state.output_bytes);
    find(state.logit_mean, 4);
    for (int i = 0; i < 2; ++i) {
      const int64_t row_bytes = state.classes * rows[i]->item_bytes;
      for (int s = 0; s < samples.count; ++s) {
        rows[i]->row[s] = arrays[i] ? arrays[i] + samples.id[s] * row_bytes : samples.source.row[s];
        if (Layout::kTile && arrays[i]) prefetch_bytes(rows[i]->row[s], row_bytes);
      }
    }
  }

  void next(Samples& samples, int64_t most) {
    samples.count = 0;
    samples.consecutive = true;
    for (; row < end && samples.count < most; ++row) {
      if (status[row] != claimed) continue;
      const int s = samples.count++;
      samples.row[s] = row;
      samples.id[s] = id_at(batch, row);
      samples.source.row[s] = row_of(batch.logits, batch.dtype, row, state.classes);
      samples.consecutive &= samples.id[s] == samples.id[0] + s;
    }
    samples.consecutive &= samples.count == kLanes;
    samples.source.item_bytes = item_bytes(batch.dtype);
    if (!samples.count) return;
    prefetch_state(samples);
    const void* const values[] = {state.count,        state.m2,       state.entropy_sum,
                                  state.last_entropy, state.last_top, state.last_margin};
    const int step = samples.consecutive ? kLanes : 1;
    for (const void* value : values) {
      if (!value) continue;
      for (int s = 0; s < samples.count; s += step) {
        __builtin_prefetch(static_cast<const char*>(value) + samples.id[s] * 4, 1);
      }
    }
    if (batch.targets && state.training) {
      for (int s = 0; s < samples.count; ++s) {
        __builtin_prefetch(state.training + samples.id[s], 1);
        __builtin_prefetch(state.training_count + samples.id[s], 1);
      }
    }
  }
};

// Points the samples at their logits in float32, converting other types. In a tile the lanes beyond
// the last sample repeat the first.
template <Activation activation>
inline void take_logits(Samples& samples, Dtype dtype, int64_t classes, float* converted) {
  for (int s = 0; s < samples.count; ++s) {
    if (dtype == Dtype::float32) {
      samples.x[s] = reinterpret_cast<const float*>(samples.source.row[s]);
      samples.shift[s] = 0;
    } else {
      samples.x[s] = converted + s * classes;
      samples.shift[s] =
          convert_row<activation>(samples.source.row[s], dtype, classes, converted + s * classes);
    }
  }
  for (int s = samples.count; s < kLanes; ++s) {
    samples.id[s] = samples.id[0];
    samples.x[s] = samples.x[0];
    samples.shift[s] = samples.shift[0];
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

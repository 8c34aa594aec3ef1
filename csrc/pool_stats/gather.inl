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

DYNAL_INLINE void prefetch_bytes(const void* first, int64_t bytes) {
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
  int64_t ahead;  // the first row whose values are not prefetched yet

  // At most two arrays per class are prefetched; few updates read more. Long rows are prefetched
  // during the softmax and the update.
  void find_rows(Samples& samples) const {
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
      const int64_t bytes = rows[i]->item_bytes;
      for (int s = 0; s < samples.count; ++s) {
        rows[i]->row[s] = arrays[i] ? arrays[i] + samples.start[s] * bytes : samples.source.row[s];
      }
    }
  }

  // Prefetches the values of a sample: those of a few bytes, and the rows of a tile.
  DYNAL_INLINE void prefetch(int64_t id, int64_t samples) const {
    const auto fetch = [&](const void* array, int64_t bytes) __attribute__((always_inline)) {
      if (array) prefetch_bytes(static_cast<const char*>(array) + id * bytes, samples * bytes);
    };
    fetch(state.count, 4);
    fetch(state.m2, 4);
    fetch(state.entropy_sum, 4);
    fetch(state.last_entropy, 4);
    fetch(state.last_top, 4);
    fetch(state.last_margin, 4);
    if (batch.targets) {
      fetch(state.training, sizeof(TrainingRow));
      fetch(state.training_count, 4);
    }
    if (!Layout::kTile) return;
    fetch(state.mean, 4 * state.classes);
    fetch(state.label_counts, state.label_bytes * state.classes);
    fetch(state.output, state.output_bytes * state.classes);
    fetch(state.previous_output, state.output_bytes * state.classes);
    fetch(state.logit_mean, 4 * state.classes);
  }

  // Keeps the prefetches some turns ahead of the rows. Samples in order need one prefetch a line.
  DYNAL_INLINE void prefetch_ahead() {
    const int64_t stop = row + kAheadRows < end ? row + kAheadRows : end;
    while (ahead < stop) {
      const int64_t first = id_at(batch, ahead);
      int64_t n = 1;
      if (status[ahead] == claimed) {
        while (n < kLanes && ahead + n < stop && id_at(batch, ahead + n) == first + n &&
               status[ahead + n] == claimed) {
          ++n;
        }
        prefetch(first, n);
        if (Layout::kTile) {
          const int64_t bytes = state.classes * item_bytes(batch.dtype);
          prefetch_bytes(static_cast<const char*>(batch.logits) + ahead * bytes, n * bytes);
        }
      }
      ahead += n;
    }
  }

  void next(Samples& samples, int64_t most) {
    int n = 0;
    for (; row < end && n < most; ++row) {
      if (status[row] == claimed) samples.row[n++] = row;
    }
    samples.count = n;
    samples.source.item_bytes = item_bytes(batch.dtype);
    if (!n) return;
    prefetch_ahead();
    const char* const logits = static_cast<const char*>(batch.logits);
    const int64_t row_bytes = state.classes * samples.source.item_bytes;
    bool consecutive = n == kLanes;
    for (int s = 0; s < n; ++s) {
      const int64_t id = id_at(batch, samples.row[s]);
      samples.id[s] = id;
      samples.start[s] = id * state.classes;
      samples.source.row[s] = logits + samples.row[s] * row_bytes;
      consecutive &= id == samples.id[0] + s;
    }
    samples.consecutive = consecutive;
    if (!Layout::kTile) find_rows(samples);
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
    samples.start[s] = samples.start[0];
    samples.x[s] = samples.x[0];
    samples.shift[s] = samples.shift[0];
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

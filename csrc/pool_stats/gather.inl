// The rows of a batch, as the samples that an update works on together.
#pragma once

#include "layout.inl"

namespace dynal {
namespace DYNAL_ISA {
namespace stats {

using pool_stats::Batch;
using pool_stats::State;

// float16 or bfloat16.
inline void halves_to_floats(const uint16_t* from, Dtype dtype, int64_t n, float* to) {
  int64_t i = 0;
  if (dtype == Dtype::float16) {
    for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
    if (i < n) store_n(to + i, load_n(from + i, n - i), n - i);
    return;
  }
  for (; i < n; ++i) {
    const uint32_t bits = (uint32_t)from[i] << 16;
    __builtin_memcpy(to + i, &bits, 4);
  }
}

inline void to_floats(const char* from, Dtype dtype, int64_t n, float* to) {
  if (dtype == Dtype::float64) {
    for (int64_t i = 0; i < n; ++i) to[i] = (float)reinterpret_cast<const double*>(from)[i];
  } else if (dtype == Dtype::float32) {
    __builtin_memcpy(to, from, n * 4);
  } else {
    halves_to_floats(reinterpret_cast<const uint16_t*>(from), dtype, n, to);
  }
}

// A row of logits of another type becomes float32 at `x`. Returns what was taken off.
inline float convert_row(const void* logits, Dtype dtype, int64_t classes, float* x) {
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

inline int64_t bytes_of(Dtype dtype) { return kItemBytes[static_cast<int>(dtype)]; }

inline const char* row_of(const void* array, Dtype dtype, int64_t row, int64_t columns) {
  return static_cast<const char*>(array) + row * columns * bytes_of(dtype);
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

// Gathers claimed rows, ahead of those that are worked on, and asks for what they need.
template <class Layout>
struct Gather {
  const State& state;
  const Batch& batch;
  const uint8_t* status;
  int64_t row, end;

  // What the update reads per class: at most two arrays are asked for ahead, as few need more. Rows
  // of a tile are short and asked for here, the others while the softmax runs.
  void ask_for_rows(Samples& samples) const {
    const char* arrays[2] = {};
    int found = 0;
    const auto find = [&](const void* array, int64_t bytes) {
      if (!array || found == 2) return;
      samples.soon_bytes[found] = bytes;
      arrays[found++] = static_cast<const char*>(array);
    };
    find(state.mean, 4);
    find(state.output, state.output_bytes);
    find(state.previous_output, state.output_bytes);
    find(state.logit_mean, 4);
    for (int i = 0; i < 2; ++i) {
      const int64_t row_bytes = state.classes * samples.soon_bytes[i];
      for (int s = 0; s < samples.count; ++s) {
        samples.soon[i][s] = arrays[i] ? arrays[i] + samples.id[s] * row_bytes : samples.source[s];
        if (Layout::kTile && arrays[i]) prefetch_bytes(samples.soon[i][s], row_bytes);
      }
    }
  }

  void next(Samples& samples, int64_t most) {
    samples.count = 0;
    samples.consecutive = true;
    for (; row < end && samples.count < most; ++row) {
      if (status[row] != pool_stats::claimed) continue;
      const int s = samples.count++;
      samples.row[s] = row;
      samples.id[s] = id_at(batch, row);
      samples.source[s] = row_of(batch.logits, batch.dtype, row, state.classes);
      samples.consecutive &= samples.id[s] == samples.id[0] + s;
    }
    samples.consecutive &= samples.count == kLanes;
    samples.source_bytes = bytes_of(batch.dtype);
    if (!samples.count) return;
    ask_for_rows(samples);
    const void* const values[] = {state.count,        state.m2,       state.entropy_sum,
                                  state.last_entropy, state.last_top, state.last_margin};
    const int step = samples.consecutive ? kLanes : 1;
    for (const void* value : values) {
      if (!value) continue;
      for (int s = 0; s < samples.count; s += step) {
        __builtin_prefetch(static_cast<const char*>(value) + samples.id[s] * 4, 1);
      }
    }
  }
};

// Point the samples at their logits, converted where that is needed. The lanes of a tile beyond the
// last sample repeat the first.
inline void take_logits(Samples& samples, Dtype dtype, int64_t classes, float* converted) {
  for (int s = 0; s < samples.count; ++s) {
    if (dtype == Dtype::float32) {
      samples.x[s] = reinterpret_cast<const float*>(samples.source[s]);
      samples.shift[s] = 0;
    } else {
      samples.x[s] = converted + s * classes;
      samples.shift[s] = convert_row(samples.source[s], dtype, classes, converted + s * classes);
    }
  }
  for (int s = samples.count; s < kLanes; ++s) {
    samples.id[s] = samples.id[0];
    samples.x[s] = samples.x[0];
    samples.shift[s] = samples.shift[0];
  }
}

}  // namespace stats
}  // namespace DYNAL_ISA
}  // namespace dynal

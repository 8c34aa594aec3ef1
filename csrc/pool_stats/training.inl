// The training dynamics of labeled samples, from the softmax of a batch and its targets.
#pragma once

#include "softmax.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

inline vf sum_of_squares(const float* e, int64_t n) {  // n: a multiple of kLanes
  vf sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const vf x = load(e + i + j * kLanes);
      sums[j] += x * x;
    }
  }
  for (; i < n; i += kLanes) sums[0] += load(e + i) * load(e + i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

inline vf sum_of_squares(const TileLayout& layout, const float* e) {
  return sum_of_squares(e, layout.classes * kLanes);
}

inline vf sum_of_squares(const RowLayout& layout, const float* e) {
  vf rows[kLanes];
  for (int s = 0; s < layout.samples.count; ++s) {
    rows[s] = sum_of_squares(e + layout.position(s, 0), padded(layout.classes));
  }
  return sum_rows(rows, layout.samples.count);
}

constexpr int kColumns = sizeof(TrainingRow) / sizeof(float);

// Loads the rows of the samples and transposes them: lane s of a column is sample s.
inline void load_columns(const Samples& samples, const TrainingRow* training, vf* columns) {
  for (int c = 0; c < kColumns; c += kLanes) {
    const int n = kColumns - c < kLanes ? kColumns - c : kLanes;
    vf rows[kLanes];
    for (int s = 0; s < kLanes; ++s) {
      rows[s] = load_n(reinterpret_cast<const float*>(training + samples.id[s]) + c, n);
    }
    transpose(rows);
    for (int j = 0; j < n; ++j) columns[c + j] = rows[j];
  }
}

// The inverse, for the samples that have a target.
inline void store_columns(const Samples& samples, const int32_t* target, TrainingRow* training,
                          const vf* columns) {
  for (int c = 0; c < kColumns; c += kLanes) {
    const int n = kColumns - c < kLanes ? kColumns - c : kLanes;
    vf rows[kLanes] = {};
    for (int j = 0; j < n; ++j) rows[j] = columns[c + j];
    transpose(rows);
    for (int s = 0; s < samples.count; ++s) {
      if (target[s] < 0) continue;
      store_n(reinterpret_cast<float*>(training + samples.id[s]) + c, rows[s], n);
    }
  }
}

// Updates the samples that have a target.
template <class Layout>
inline void training_update(const Layout& layout, const State& state, const int64_t* targets,
                            const Output& out) {
  const Samples& samples = layout.samples;
  alignas(DYNAL_VECTOR_BYTES) int32_t target[kLanes] = {}, counts[kLanes] = {};
  alignas(DYNAL_VECTOR_BYTES) float own[kLanes] = {}, logit[kLanes] = {}, lengths[kLanes];
  for (int s = 0; s < samples.count; ++s) {
    const int64_t given = samples.finite[s] ? targets[samples.row[s]] : -1;
    target[s] = given < 0 ? -1 : (int32_t)given;
    if (given < 0) continue;
    counts[s] = state.training_count[samples.id[s]];
    logit[s] = samples.x[s][given];
    float& e = out.e[layout.position(s, given)];
    own[s] = e;
    e = 0;  // subtracted from the sum of all squares, it would leave rounding errors
  }
  const vf others = sum_of_squares(layout, out.e);
  const vf inverse = load(out.inverse), p = load(own) * inverse, missing = 1.0f - p;
  store(lengths, others * inverse * inverse + missing * missing);
  for (int s = 0; s < kLanes; ++s) lengths[s] = __builtin_sqrtf(lengths[s]);

  vf columns[kColumns];
  load_columns(samples, state.training, columns);
  vf &mean = columns[0], &m2 = columns[1], &correct = columns[2], &flips = columns[3];
  vf &first_learned = columns[4], &margin_sum = columns[5], &error_sum = columns[6];
  const vi label = load(target), right = load(out.label) == label;
  const vf now = __builtin_convertvector(label, vf), one = select(right, splat(1.0f), vf{});
  const vi same = (load(counts) > 0) & (columns[7] == now);  // else it begins anew
  for (vf& column : columns) column = select(same, column, vf{});
  const vi count = select(same, load(counts), vi{}) + 1;
  const vf n = __builtin_convertvector(count, vf), rate = 1.0f / n, delta = p - mean;
  mean += delta * rate;
  m2 += delta * delta * (1.0f - rate);
  correct += one;
  const vi odd = (__builtin_convertvector(flips, vi) & 1) == 1;
  flips += select(odd ^ right, splat(1.0f), vf{});
  first_learned = select(right & (first_learned == 0.0f), n, first_learned);
  const vf margin = load(logit) - select(right, out.second_logit, out.top_logit);
  margin_sum += maximum(minimum(margin, splat(kLogitLimit)), splat(-kLogitLimit));
  error_sum += load(lengths);
  columns[7] = now;
  store_columns(samples, target, state.training, columns);
  for (int s = 0; s < samples.count; ++s) {
    if (target[s] < 0) continue;
    out.e[layout.position(s, target[s])] = own[s];
    state.training_count[samples.id[s]] = count[s];
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

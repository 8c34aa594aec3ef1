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

// What belongs to the target of each sample.
struct AtTarget {
  vf e, logit;
  vf others;  // the sum of the squares of the other e
};

// The target's e is left out of the sum: subtracted from it, it would leave rounding errors.
inline AtTarget at_target(const TileLayout& layout, const float* tile, const float* e,
                          const int32_t* target) {
  const vi label = load(target);
  AtTarget at = {};
  for (int64_t c = 0; c < layout.classes; ++c) {
    const vi own = label == splat((int32_t)c);
    const vf x = load(e + c * kLanes), other = select(own, vf{}, x);
    at.e += select(own, x, vf{});
    at.logit += select(own, load(tile + c * kLanes), vf{});
    at.others += other * other;
  }
  return at;
}

// Clears e at the targets: nothing reads it after this. All are cleared before the first is summed,
// as a vector cannot be loaded while a store to a part of it is pending.
inline AtTarget at_target(const RowLayout& layout, const float*, float* e, const int32_t* target) {
  alignas(DYNAL_VECTOR_BYTES) float own[kLanes] = {}, logit[kLanes] = {};
  const int count = layout.samples.count;
  for (int s = 0; s < count; ++s) {
    if (target[s] < 0) continue;
    float& x = e[layout.position(s, target[s])];
    own[s] = x;
    x = 0;
    logit[s] = layout.samples.x[s][target[s]];
  }
  vf rows[kLanes];
  for (int s = 0; s < count; ++s) {
    rows[s] = sum_of_squares(e + layout.position(s, 0), padded(layout.classes));
  }
  return {load(own), load(logit), sum_rows(rows, count)};
}

constexpr int kColumns = sizeof(TrainingRow) / sizeof(float);

// Updates the samples that have a target.
template <class Layout>
inline void training_update(const Layout& layout, const State& state, const int64_t* targets,
                            const float* tile, const Output& out) {
  const Samples& samples = layout.samples;
  alignas(DYNAL_VECTOR_BYTES) int32_t target[kLanes], counts[kLanes] = {};
  alignas(DYNAL_VECTOR_BYTES) float lengths[kLanes];
  uint32_t labeled = 0;
  for (int s = 0; s < kLanes; ++s) {
    const int64_t given = samples.finite[s] ? targets[samples.row[s]] : -1;
    target[s] = given < 0 ? -1 : (int32_t)given;
    if (given < 0) continue;
    labeled |= 1u << s;
    counts[s] = state.training_count[samples.id[s]];
  }
  const AtTarget at = at_target(layout, tile, out.e, target);
  const vf inverse = load(out.inverse), p = at.e * inverse, missing = 1.0f - p;
  store(lengths, at.others * inverse * inverse + missing * missing);
  for (int s = 0; s < kLanes; ++s) lengths[s] = __builtin_sqrtf(lengths[s]);

  vf columns[kColumns];
  const auto row = [&](int c) {
    return [&, c](int s) { return reinterpret_cast<float*>(state.training + samples.id[s]) + c; };
  };
  load_columns(row(0), 4, columns);
  load_columns(row(4), 4, columns + 4);
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
  const vf margin = at.logit - select(right, out.second_logit, out.top_logit);
  margin_sum += maximum(minimum(margin, splat(kLogitLimit)), splat(-kLogitLimit));
  error_sum += load(lengths);
  columns[7] = now;
  store_columns(row(0), 4, columns, labeled);
  store_columns(row(4), 4, columns + 4, labeled);
  for (int s = 0; s < samples.count; ++s) {
    if (labeled >> s & 1) state.training_count[samples.id[s]] = count[s];
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

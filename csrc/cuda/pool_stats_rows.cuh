// The work of a thread on rows of logits: claim their samples, fold its classes, finish a row.
//
// Names and order are those of dynal_fast/ops/pool_stats/reference.py. `hopper` is the hardware, or
// in the tests a model of it (tests/hopper_emulation.h).
#pragma once

#include <cmath>

#include "../pool_stats/pool_stats.h"
#ifdef __CUDACC__
#include "hopper.cuh"
#else
#include "hopper_emulation.h"
#endif

namespace dynal {
namespace pool_stats {
namespace hopper {

using namespace dynal::hopper;

constexpr float kLog2E = 1.4426950408889634f;

struct Ids {
  const void* ids;  // (rows) of `bytes` each
  int bytes;
  int64_t rows;
};

// A row of the batch.
struct Row {
  int64_t id, sample;
  bool inside, in_range;

  DYNAL_DEVICE Row(const State& state, const Ids& ids, int64_t row)
      : id(-1), inside(row < ids.rows) {
    if (inside) {
      id = ids.bytes == 8 ? static_cast<const int64_t*>(ids.ids)[row]
                          : static_cast<const int32_t*>(ids.ids)[row];
    }
    in_range = id >= 0 && id < state.num_samples;
    sample = in_range ? id : 0;
  }
};

// Stamps the row's sample and returns whether the row counts; if not, records why.
DYNAL_DEVICE bool claim(const State& state, const Row& row) {
  bool known = false, first = false;
  if (row.in_range) {
    const int32_t current = *state.pass_stamp;
    const int32_t old = atomic_max(state.stamp + row.sample, current);
    known = old != kDropped;
    first = known && old < current;
    if (known && !first) atomic_or(state.stamp + row.sample, kDuplicate);
  }
  if (row.inside && !known) {
    const int64_t slot = atomic_increment(state.unknown_ids);
    if (slot < kMaxUnknownIds) state.unknown_ids[1 + slot] = row.id;
  }
  return first;
}

// Reductions over the four lanes that share a row.
DYNAL_DEVICE float sum_of_lanes(float x) {
  x += shuffle_xor(x, 1);
  return x + shuffle_xor(x, 2);
}
DYNAL_DEVICE float max_of_lanes(float x) {
  x = fmaxf(x, shuffle_xor(x, 1));
  return fmaxf(x, shuffle_xor(x, 2));
}

struct Top {
  float top, second;
  int label;

  DYNAL_DEVICE void merge(float other_top, float other_second, int other_label) {
    if (other_top > top || (other_top == top && other_label < label)) {
      second = fmaxf(other_second, top);
      top = other_top;
      label = other_label;
    } else {
      second = fmaxf(second, other_top);
    }
  }
  DYNAL_DEVICE void merge_lanes(int lanes) {
    merge(shuffle_xor(top, lanes), shuffle_xor(second, lanes), shuffle_xor(label, lanes));
  }
};

// A thread's share of the classes of a row: 16 pairs, eight columns apart, of which the first
// `count` exist. Pair j is x[4 j] and x[4 j + 1]; that of the second row is x[4 j + 2] and x[4 j +
// 3].
constexpr int kPairs = 16;

struct Slice {
  int64_t offset;  // of the first pair in a tensor (samples, classes)
  int count;
};

struct alignas(8) Pair {
  float x, y;
};

// Pairs of a tensor of float or half (as uint16_t).
DYNAL_DEVICE Pair load_pair(const float* from) { return *reinterpret_cast<const Pair*>(from); }
DYNAL_DEVICE Pair load_pair(const uint16_t* from) {
  const uint32_t both = *reinterpret_cast<const uint32_t*>(from);
  return {half_to_float(both & 0xffff), half_to_float(both >> 16)};
}
DYNAL_DEVICE void store_pair(float* to, Pair pair) { *reinterpret_cast<Pair*>(to) = pair; }
DYNAL_DEVICE void store_pair(uint16_t* to, Pair pair) {
  *reinterpret_cast<uint32_t*>(to) =
      float_to_half(pair.x) | static_cast<uint32_t>(float_to_half(pair.y)) << 16;
}

// Replaces each pair of a slice by update(j, old pair). All pairs are loaded before the first is
// used.
template <class Float, class Update>
DYNAL_DEVICE void update_pairs(Float* tensor, const Slice& slice, const Update& update) {
  Float* const first = tensor + slice.offset;
  Pair old[kPairs];
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    old[j] = j < slice.count ? load_pair(first + 8 * j) : Pair{0.0f, 0.0f};
  }
#pragma unroll
  for (int j = 0; j < kPairs; ++j) {
    const Pair pair = update(j, old[j]);
    if (j < slice.count) store_pair(first + 8 * j, pair);
  }
}

// The sums over the classes of a row, or over a part of them.
struct Sums {
  float weighted, m2, increase, cycle;  // e log(e), growth of M2, squared distances
};

// Returns the new mean of two classes; `growth` is what their M2 grows by.
DYNAL_DEVICE Pair welford_update(Pair p, Pair mean, float rate, Pair& growth) {
  const Pair delta{p.x - mean.x, p.y - mean.y};
  mean = {mean.x + delta.x * rate, mean.y + delta.y * rate};
  growth = {delta.x * (p.x - mean.x), delta.y * (p.y - mean.y)};
  return mean;
}

// Folds the classes into the mean, after M2 per class, which needs the old mean.
template <class Probability>
DYNAL_DEVICE void fold_mean(const State& state, const Slice& slice, float rate,
                            const Probability& probability, float& m2) {
  if (state.class_m2) {
    const float* means = state.mean + slice.offset;
    update_pairs(state.class_m2, slice, [&](int j, Pair old) {
      Pair growth{0.0f, 0.0f};
      if (j < slice.count) {
        welford_update(probability(j), load_pair(means + 8 * j), rate, growth);
      }
      return Pair{old.x + growth.x, old.y + growth.y};
    });
  }
  update_pairs(state.mean, slice, [&](int j, Pair mean) {
    Pair growth;
    mean = welford_update(probability(j), mean, rate, growth);
    m2 += growth.x + growth.y;
    return mean;
  });
}

// Folds a thread's share of a row into the state and adds to the row's sums. `probability(j)` is
// pair j of the softmax, 0 beyond the classes.
template <class Probability>
DYNAL_DEVICE void fold_slice(const State& state, const Slice& slice, float rate,
                             const Probability& probability, Sums& sums) {
  if (state.mean) fold_mean(state, slice, rate, probability, sums.m2);
  const auto replace = [&](void* output, float& distance) {
    const auto update = [&](int j, Pair old) {
      const Pair p = probability(j);
      distance += (p.x - old.x) * (p.x - old.x) + (p.y - old.y) * (p.y - old.y);
      return p;
    };
    if (state.output_bytes == 4) {
      update_pairs(static_cast<float*>(output), slice, update);
    } else {
      update_pairs(static_cast<uint16_t*>(output), slice, update);
    }
  };
  if (state.previous_output) replace(state.previous_output, sums.increase);
  if (state.output) replace(state.output, sums.cycle);
}

// A row whose classes are all folded.
struct Finished {
  float top, total, second, entropy;
  int label;
  Sums sums;
};

template <class Count>
DYNAL_DEVICE int label_count(const State& state, int64_t at) {
  return static_cast<const Count*>(state.label_counts)[at];
}

// Updates the values per sample. All are loaded first, so that their latencies overlap.
DYNAL_DEVICE void finish_row(const State& state, int64_t sample, const Finished& row) {
  const int64_t label = sample * state.classes + row.label;
  const int32_t count = state.count ? state.count[sample] : 0;
  const float m2 = state.m2 ? state.m2[sample] : 0.0f;
  const float entropy_sum = state.entropy_sum ? state.entropy_sum[sample] : 0.0f;
  const int labels = !state.label_counts      ? 0
                     : state.label_bytes == 1 ? label_count<uint8_t>(state, label)
                     : state.label_bytes == 2 ? label_count<uint16_t>(state, label)
                                              : label_count<int32_t>(state, label);
  const int32_t increases = state.increase_count ? state.increase_count[sample] : 0;
  const float increase_sum = state.increase_count ? state.increase_sum[sample] : 0.0f;
  if (state.count) state.count[sample] = count + 1;
  if (state.m2) state.m2[sample] = m2 + row.sums.m2;
  if (state.entropy_sum) state.entropy_sum[sample] = entropy_sum + row.entropy;
  if (state.label_counts) {
    if (state.label_bytes == 1) {
      static_cast<uint8_t*>(state.label_counts)[label] = labels + 1;
    } else if (state.label_bytes == 2) {
      static_cast<uint16_t*>(state.label_counts)[label] = labels + 1;
    } else {
      static_cast<int32_t*>(state.label_counts)[label] = labels + 1;
    }
  }
  if (state.increase_count) {
    state.increase_count[sample] = increases + 1;
    if (increases > 0) state.increase_sum[sample] = increase_sum + sqrtf(row.sums.increase);
  }
  if (state.cycle_discrepancy) state.cycle_discrepancy[sample] = row.sums.cycle;
  if (state.last_entropy) state.last_entropy[sample] = row.entropy;
  if (state.last_top) state.last_top[sample] = 1.0f / row.total;
  if (state.last_margin) {
    const float runner_up = fast_exp2((row.second - row.top) * kLog2E);
    state.last_margin[sample] = (1.0f - runner_up) / row.total;
  }
}

}  // namespace hopper
}  // namespace pool_stats
}  // namespace dynal

// The softmax of samples, and the entropy, label and top two that scores of one output need.
#pragma once

#include "layout.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

// The probability of class c is e_c * inverse. A vector has one lane per sample.
struct Output {
  float* e = nullptr;  // (classes, kLanes), or (samples, padded classes)
  alignas(DYNAL_VECTOR_BYTES) float inverse[kLanes];  // 1 / sum of e; 1 for sigmoids
  alignas(DYNAL_VECTOR_BYTES) int32_t label[kLanes];  // the lowest class with the largest logit
  alignas(DYNAL_VECTOR_BYTES) int32_t bad[kLanes];    // not 0 where a logit is not finite
  vf entropy;                                         // in nats
  vf top, margin;  // the largest probability, and by how much it exceeds the second largest
  vf top_logit, second_logit;
};

struct TopTwo {
  vf first, second;
  vi label;
};

inline TopTwo no_top_two() { return {splat(-__builtin_inff()), splat(-__builtin_inff()), vi{}}; }

inline void keep_top_two(TopTwo& top, vf x, vi label) {
  top.label = select(x > top.first, label, top.label);
  top.second = maximum(top.second, minimum(top.first, x));
  top.first = maximum(x, top.first);
}

// The top two of both, lane by lane. Between equal logits the lower class wins.
inline TopTwo merge(const TopTwo& a, const TopTwo& b) {
  const vi better = (b.first > a.first) | ((b.first == a.first) & (b.label < a.label));
  return {maximum(a.first, b.first),
          maximum(maximum(a.second, b.second), minimum(a.first, b.first)),
          select(better, b.label, a.label)};
}

inline TopTwo zip_low(const TopTwo& a, const TopTwo& b) {
  using dynal::DYNAL_ISA::zip_low;  // of vectors
  return {zip_low(a.first, b.first), zip_low(a.second, b.second), zip_low(a.label, b.label)};
}
inline TopTwo zip_high(const TopTwo& a, const TopTwo& b) {
  using dynal::DYNAL_ISA::zip_high;
  return {zip_high(a.first, b.first), zip_high(a.second, b.second), zip_high(a.label, b.label)};
}

#define DYNAL_MERGE_SWAPPED(SWAP)                                \
  top = merge(top, {DYNAL_SHUFFLE(top.first, top.first, SWAP),   \
                    DYNAL_SHUFFLE(top.second, top.second, SWAP), \
                    DYNAL_SHUFFLE(top.label, top.label, SWAP)});

// Reduces each row to one lane: lane s of the result is the top two over the lanes of rows[s].
inline TopTwo merge_rows(TopTwo rows[kLanes], int count) {
  if (count > kLanes / 4) {
    for (int s = count; s < kLanes; ++s) rows[s] = rows[0];
    return reduce_rows(rows, [](const TopTwo& a, const TopTwo& b) { return merge(a, b); });
  }
  TopTwo merged = no_top_two();
  for (int s = 0; s < count; ++s) {
    TopTwo top = rows[s];
    DYNAL_FOR_SWAPS(DYNAL_MERGE_SWAPPED)
    merged.first[s] = top.first[0];
    merged.second[s] = top.second[0];
    merged.label[s] = top.label[0];
  }
  return merged;
}

struct Sums {
  vf exponentials, weighted;  // of e and of e * (x - largest x)
};

inline vf add_exponentials(Sums& sums, vf z) {
  const vf e = exp_nonpositive(z);
  sums.exponentials += e;
  sums.weighted += e * z;  // NaN where the logit is not finite: for -inf it is 0 * -inf
  return e;
}

// Handles the samples whose weighted sum is not finite. Either a logit is not finite, or their
// range overflows; then the sums are computed again from clamped differences.
template <class Layout>
inline void examine(const Layout& layout, const TopTwo& top, Sums& sums, Output& out) {
  store(out.bad, vi{});
  const vi odd = non_finite(sums.weighted);
  if (!any(odd)) return;
  for (int s = 0; s < layout.samples.count; ++s) {
    if (!odd[s]) continue;
    bool finite = true;
    vf exponentials = {}, weighted = {};
    for (int64_t c = 0; c < layout.classes; ++c) {
      const float x = layout.samples.x[s][c];
      finite &= __builtin_fabsf(x) <= __FLT_MAX__;
      const vf z = maximum(splat(x - top.first[s]), splat(-88.0f));
      const vf e = exp_nonpositive(z);
      out.e[layout.position(s, c)] = e[0];
      exponentials += e;
      weighted += e * z;
    }
    out.bad[s] = !finite;
    sums.exponentials[s] = exponentials[0];
    sums.weighted[s] = weighted[0];
  }
}

template <class Layout>
inline void finish(const Layout& layout, const TopTwo& top, Sums sums, Output& out) {
  examine(layout, top, sums, out);
  const vf inverse = 1.0f / sums.exponentials;
  store(out.inverse, inverse);
  store(out.label, top.label);
  out.entropy = log_from_one(sums.exponentials) - sums.weighted * inverse;
  out.top = inverse;
  out.top_logit = top.first;
  out.second_logit = top.second;
  out.margin = (1.0f - exp_nonpositive(top.second - top.first)) * inverse;
}

// Stores the logits (classes, kLanes) of a tile.
inline void transpose_logits(const TileLayout& layout, float* tile) {
  layout.in_quads([&](int64_t c, int64_t n) __attribute__((always_inline)) {
    vf columns[4];
    load_columns([&](int s) { return layout.samples.x[s] + c; }, n, columns);
    for (int64_t j = 0; j < n; ++j) store(tile + (c + j) * kLanes, columns[j]);
  });
}

inline void softmax(const TileLayout& layout, float* tile, Output& out) {
  const int64_t classes = layout.classes;
  transpose_logits(layout, tile);
  TopTwo top = no_top_two();
  for (int64_t c = 0; c < classes; ++c) {
    keep_top_two(top, load(tile + c * kLanes), splat((int32_t)c));
  }
  Sums sums = {};
  for (int64_t c = 0; c < classes; ++c) {
    store(out.e + c * kLanes, add_exponentials(sums, load(tile + c * kLanes) - top.first));
  }
  finish(layout, top, sums, out);
}

inline void softmax(const RowLayout& layout, float*, Output& out) {
  const Samples& samples = layout.samples;
  const int64_t classes = layout.classes;
  const int64_t whole = classes / kLanes * kLanes, rest = classes - whole;
  const vi in_rest = kLaneIndex < splat((int32_t)rest);
  TopTwo rows[kLanes];
  for (int s = 0; s < samples.count; ++s) {
    const float* x = samples.x[s];
    const uintptr_t late = address(samples.late.row[s]);
    TopTwo top = no_top_two();
    vi at = kLaneIndex;
    for (int64_t c = 0; c < whole; c += kLanes, at += kLanes) {
      prefetch_line<1>(late + c * samples.late.item_bytes);
      keep_top_two(top, load(x + c), at);
    }
    prefetch_line<1>(late + (classes - 1) * samples.late.item_bytes);
    if (rest) {
      keep_top_two(top, select(in_rest, load_n(x + whole, rest), splat(-__builtin_inff())), at);
    }
    rows[s] = top;
  }
  const TopTwo top = merge_rows(rows, samples.count);
  alignas(DYNAL_VECTOR_BYTES) float largest[kLanes];
  store(largest, top.first);
  vf exponentials[kLanes], weighted[kLanes];
  for (int s = 0; s < samples.count; ++s) {
    const float* x = samples.x[s];
    const int64_t source_bytes = samples.next->source.item_bytes;
    const int64_t early_bytes = samples.next->early.item_bytes;
    const uintptr_t source = address(samples.next->source.row[s]);
    const uintptr_t early = address(samples.next->early.row[s]);
    float* e = out.e + layout.position(s, 0);
    const vf most = splat(largest[s]);
    Sums sums = {};
    for (int64_t c = 0; c < whole; c += kLanes) {
      prefetch_line<0>(source + c * source_bytes);
      prefetch_line<1>(early + c * early_bytes / 2);
      store(e + c, add_exponentials(sums, load(x + c) - most));
    }
    prefetch_line<0>(source + (classes - 1) * source_bytes);
    if (rest) {
      const vf z = select(in_rest, load_n(x + whole, rest) - most, splat(-150.0f));
      store(e + whole, add_exponentials(sums, z));
    }
    exponentials[s] = sums.exponentials;
    weighted[s] = sums.weighted;
  }
  finish(layout, top, {sum_rows(exponentials, samples.count), sum_rows(weighted, samples.count)},
         out);
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

// The sigmoids of labels that do not exclude each other, and what scores of one output need.
#pragma once

#include "softmax.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

struct LabelSums {
  vf entropy;  // of the labels, in nats
  vf least;    // the smallest |x|: that of the least sure label
};

inline LabelSums no_labels() { return {vf{}, splat(__builtin_inff())}; }

// Returns 1 / (1 + exp(-x)).
inline vf add_label(LabelSums& sums, vf x) {
  const vf size = bits_to_float(float_to_bits(x) & 0x7fffffff);
  const vf e = exp_nonpositive(-size), inverse = 1.0f / (1.0f + e);
  sums.entropy += log_one_plus(e) + size * e * inverse;  // NaN where x is not finite
  sums.least = minimum(size, sums.least);
  return select(x < 0.0f, e, splat(1.0f)) * inverse;
}

// The least sure label is one of two classes, with the logits 0 and |x|.
inline void finish(const LabelSums& sums, Output& out) {
  store(out.bad, non_finite(sums.entropy));
  store(out.inverse, splat(1.0f));
  store(out.label, vi{});
  out.entropy = sums.entropy;
  const vf e = exp_nonpositive(-sums.least);
  out.top = 1.0f / (1.0f + e);
  out.margin = (1.0f - e) * out.top;
}

inline void sigmoid(const TileLayout& layout, float* tile, Output& out) {
  transpose_logits(layout, tile);
  LabelSums sums = no_labels();
  for (int64_t c = 0; c < layout.classes; ++c) {
    store(out.e + c * kLanes, add_label(sums, load(tile + c * kLanes)));
  }
  finish(sums, out);
}

inline void sigmoid(const RowLayout& layout, float*, Output& out) {
  const Samples& samples = layout.samples;
  const int64_t classes = layout.classes;
  const int64_t whole = classes / kLanes * kLanes, rest = classes - whole;
  const vi in_rest = kLaneIndex < splat((int32_t)rest);
  vf entropy[kLanes], least[kLanes];
  for (int s = 0; s < samples.count; ++s) {
    const float* x = samples.x[s];
    const uintptr_t late = address(samples.late.row[s]);
    const int64_t source_bytes = samples.next->source.item_bytes;
    const int64_t early_bytes = samples.next->early.item_bytes;
    const uintptr_t source = address(samples.next->source.row[s]);
    const uintptr_t early = address(samples.next->early.row[s]);
    float* e = out.e + layout.position(s, 0);
    LabelSums sums = no_labels();
    for (int64_t c = 0; c < whole; c += kLanes) {
      prefetch_line<1>(late + c * samples.late.item_bytes);
      prefetch_line<0>(source + c * source_bytes);
      prefetch_line<1>(early + c * early_bytes / 2);
      store(e + c, add_label(sums, load(x + c)));
    }
    prefetch_line<1>(late + (classes - 1) * samples.late.item_bytes);
    prefetch_line<0>(source + (classes - 1) * source_bytes);
    if (rest) {  // beyond the last label: 0, and sure
      const vf z = select(in_rest, load_n(x + whole, rest), splat(-1e30f));
      store(e + whole, add_label(sums, z));
    }
    entropy[s] = sums.entropy;
    least[s] = sums.least;
  }
  finish({sum_rows(entropy, samples.count), least_of_rows(least, samples.count)}, out);
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

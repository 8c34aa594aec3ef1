// The training dynamics of labeled samples, from the softmax of a batch and its targets.
#pragma once

#include "softmax.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

// Folds what the model says of a sample with the given target into its row of the state. `margin`
// is the target's logit minus the largest other one, `error` is ||p - onehot(target)||_2.
inline void fold_target(TrainingRow& row, int32_t& count, int64_t target, float p, bool correct,
                        float margin, float error) {
  if (count == 0 || row.target != (float)target) {  // begins anew under another label
    row = TrainingRow{};
    row.target = (float)target;
    count = 0;
  }
  const float rate = 1.0f / (float)++count, delta = p - row.mean;
  row.mean += delta * rate;
  row.m2 += delta * delta * (1.0f - rate);
  row.correct += correct;
  row.flips += correct != ((int32_t)row.flips & 1);
  if (correct && row.first_learned == 0) row.first_learned = (float)count;
  row.margin_sum += margin < -kLogitLimit  ? -kLogitLimit
                    : margin > kLogitLimit ? kLogitLimit
                                           : margin;
  row.error_sum += error;
}

// Updates the samples that have a target.
template <class Layout>
inline void training_update(const Layout& layout, const State& state, const int64_t* targets,
                            const Output& out) {
  const Samples& samples = layout.samples;
  int64_t target[kLanes], at[kLanes];
  float own[kLanes];
  for (int s = 0; s < samples.count; ++s) {
    target[s] = samples.finite[s] ? targets[samples.row[s]] : -1;
    if (target[s] < 0) continue;
    at[s] = layout.position(s, target[s]);
    own[s] = out.e[at[s]];
    out.e[at[s]] = 0;  // subtracted from the sum of all squares, it would leave rounding errors
  }
  const vf others = layout.sum([&](int64_t offset, int, vf& total) {
    const vf e = load(out.e + offset);
    total += e * e;
  });
  for (int s = 0; s < samples.count; ++s) {
    if (target[s] < 0) continue;
    out.e[at[s]] = own[s];
    const int64_t id = samples.id[s];
    const float p = own[s] * out.inverse[s];
    const bool correct = out.label[s] == target[s];
    const float margin =
        samples.x[s][target[s]] - (correct ? out.second_logit[s] : out.top_logit[s]);
    const float missing = 1.0f - p;
    const float error =
        __builtin_sqrtf(others[s] * out.inverse[s] * out.inverse[s] + missing * missing);
    fold_target(state.training[id], state.training_count[id], target[s], p, correct, margin, error);
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

// The update of the pool statistics from logits.
#pragma once

#include "gather.inl"
#include "sigmoid.inl"
#include "training.inl"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

// array[id] += x, by lanes.
inline void add(const Samples& samples, float* array, vf x) {
  if (samples.consecutive && samples.all_finite) {
    store(array + samples.id[0], load(array + samples.id[0]) + x);
    return;
  }
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) array[samples.id[s]] += x[s];
  }
}

// array[id] = x, by lanes.
inline void assign(const Samples& samples, float* array, vf x) {
  if (samples.consecutive && samples.all_finite) {
    store(array + samples.id[0], x);
    return;
  }
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) array[samples.id[s]] = x[s];
  }
}

// Increments the count of each sample; returns 1 / count.
inline vf next_rate(const Samples& samples, int32_t* count) {
  if (samples.consecutive && samples.all_finite) {
    const vi n = load(count + samples.id[0]) + 1;
    store(count + samples.id[0], n);
    return 1.0f / __builtin_convertvector(n, vf);
  }
  vi n = splat(1);
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) n[s] = ++count[samples.id[s]];
  }
  return 1.0f / __builtin_convertvector(n, vf);
}

// Welford's update of the mean. Returns the growth of M2 per sample and stores that per class at
// `growth`: (x - old mean) (x - new mean), computed as (x - old mean)^2 (1 - 1 / count), which
// cannot be negative.
template <class Layout, class Observation>
inline vf welford_update(const Layout& layout, int32_t* count, float* mean, float* growth,
                         Observation observation) {
  alignas(DYNAL_VECTOR_BYTES) float rates[kLanes], rests[kLanes];
  const vf rate = next_rate(layout.samples, count);
  store(rates, rate);
  store(rests, 1.0f - rate);
  const vf squares = layout.update(mean, [&](vf old, int64_t offset, int s, vf& squares) {
    const vf delta = observation(offset, s) - old;
    squares += delta * delta;
    if (growth) store(growth + offset, delta * delta * Layout::spread(rests, s));
    return old + delta * Layout::spread(rates, s);
  });
  return squares * load(rests);
}

template <class T>
inline void count_labels(const Samples& samples, T* counts, const int32_t* label) {
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) ++counts[samples.start[s] + label[s]];
  }
}

// Replaces the array by p; returns ||p - array||_2^2 per sample.
template <class Layout, class T>
inline vf replace_output(const Layout& layout, T* array, const Output& out) {
  return layout.update(array, [&](vf old, int64_t offset, int s, vf& squares) {
    const vf p = kept(load(out.e + offset) * Layout::spread(out.inverse, s));
    squares += (p - old) * (p - old);
    return p;
  });
}

// Returns ||p - array||_2^2 per sample.
template <class Layout, class T>
inline vf distance_to(const Layout& layout, const T* array, const Output& out) {
  return layout.sum(array, [&](vf old, int64_t offset, int s, vf& squares) {
    const vf p = kept(load(out.e + offset) * Layout::spread(out.inverse, s));
    squares += (p - old) * (p - old);
  });
}

template <class Layout>
inline vf distance_to(const Layout& layout, const void* array, int bytes, const Output& out) {
  if (bytes == 2) return distance_to(layout, static_cast<const uint16_t*>(array), out);
  return distance_to(layout, static_cast<const float*>(array), out);
}

template <class Layout>
inline vf replace_output(const Layout& layout, void* array, int bytes, const Output& out) {
  if (bytes == 2) return replace_output(layout, static_cast<uint16_t*>(array), out);
  return replace_output(layout, static_cast<float*>(array), out);
}

// How many logits of each sample lie beyond the limit.
template <class Layout>
inline vf beyond_limit(const Layout& layout, const Scratch& scratch) {
  return layout.sum([&](int64_t offset, int s, vf& total) {
    const vf x = layout.logits(scratch, offset, s);
    const vi beyond = (x > kLogitLimit) | (x < -kLogitLimit);
    total += select(beyond, splat(1.0f), vf{});
  });
}

// True where a target is no class.
inline vi beyond_classes(const Samples& samples, const int64_t* targets, int64_t classes) {
  alignas(DYNAL_VECTOR_BYTES) int32_t beyond[kLanes] = {};
  for (int s = 0; s < samples.count; ++s) beyond[s] = targets[samples.row[s]] >= classes;
  return load(beyond);
}

// Notes which samples are finite, and flags the others.
inline void take_finite(const State& state, Samples& samples, vi bad) {
  if (samples.count == kLanes && !any(bad)) {
    for (int s = 0; s < kLanes; ++s) samples.finite[s] = true;
    samples.updated = (uint32_t)((1ull << kLanes) - 1);
    samples.all_finite = true;
    return;
  }
  samples.all_finite = false;
  samples.updated = 0;
  for (int s = 0; s < kLanes; ++s) {
    samples.finite[s] = s < samples.count && !bad[s];
    samples.updated |= (uint32_t)samples.finite[s] << s;
    if (s < samples.count && bad[s]) state.stamp[samples.id[s]] |= kNonFinite;
  }
}

DYNAL_INLINE void prefetch_counts(const State& state, const Samples& samples,
                                  const int32_t* label) {
  for (int s = 0; s < samples.count; ++s) {
    const int64_t cell = samples.start[s] + label[s];
    __builtin_prefetch(static_cast<char*>(state.label_counts) + cell * state.label_bytes, 1);
  }
}

template <Activation activation, class Layout>
inline void activate(const Layout& layout, float* tile, Output& out) {
  if constexpr (activation == Activation::softmax) {
    softmax(layout, tile, out);
  } else {
    sigmoid(layout, tile, out);
  }
}

template <Activation activation, class Layout>
inline void update_samples(const State& state, const int64_t* targets, Samples& samples,
                           const Samples* teacher, const Scratch& scratch) {
  const int64_t classes = state.classes;
  const Layout layout = {samples, classes};
  Output out, teacher_out;
  vi teacher_bad = {};
  if (teacher) {
    teacher_out.e = scratch.teacher_e;
    activate<activation>(Layout{*teacher, classes}, scratch.tile, teacher_out);
    teacher_bad = load(teacher_out.bad);
  }
  out.e = scratch.e;
  activate<activation>(layout, scratch.tile, out);
  const vf beyond = state.logit_count ? beyond_limit(layout, scratch) : vf{};
  vi bad = load(out.bad) | (beyond != 0.0f) | teacher_bad;
  if (targets) bad |= beyond_classes(samples, targets, classes);
  take_finite(state, samples, bad);
  if (!Layout::kTile && state.label_counts) prefetch_counts(state, samples, out.label);

  if (state.count) {
    float* growth = state.class_m2 ? scratch.growth : nullptr;
    const vf m2 =
        welford_update(layout, state.count, state.mean, growth, [&](int64_t offset, int s) {
          return load(out.e + offset) * Layout::spread(out.inverse, s);
        });
    if (state.m2) add(samples, state.m2, m2);
    if (state.class_m2) {
      layout.update(state.class_m2, [&](vf old, int64_t offset, int, vf&) {
        return old + load(scratch.growth + offset);
      });
    }
    if (state.entropy_sum) add(samples, state.entropy_sum, out.entropy);
  }
  if (state.logit_mean) {
    add(samples, state.logit_m2,
        welford_update(layout, state.logit_count, state.logit_mean, nullptr,
                       [&](int64_t offset, int s) { return layout.logits(scratch, offset, s); }));
  }
  if (state.increase_count) {
    const vf squares = replace_output(layout, state.previous_output, state.output_bytes, out);
    for (int s = 0; s < samples.count; ++s) {
      if (!samples.finite[s]) continue;
      const int64_t id = samples.id[s];
      if (state.increase_count[id]++) state.increase_sum[id] += __builtin_sqrtf(squares[s]);
    }
  }
  if (state.output) {
    const int bytes = state.output_bytes;
    if (state.latest_output) {
      assign(samples, state.cycle_discrepancy, distance_to(layout, state.output, bytes, out));
      replace_output(layout, state.latest_output, bytes, out);
    } else {
      assign(samples, state.cycle_discrepancy, replace_output(layout, state.output, bytes, out));
    }
  }
  if (teacher) {
    const vf squares = layout.sum([&](int64_t offset, int s, vf& total) {
      const vf p = kept(load(out.e + offset) * Layout::spread(out.inverse, s));
      const vf q = kept(load(teacher_out.e + offset) * Layout::spread(teacher_out.inverse, s));
      const vf d = p - q;
      total += d * d;
    });
    assign(samples, state.teacher_discrepancy, squares);
  }
  if (state.last_entropy) assign(samples, state.last_entropy, out.entropy);
  if (state.last_top) assign(samples, state.last_top, out.top);
  if (state.last_margin) assign(samples, state.last_margin, out.margin);
  if constexpr (activation == Activation::softmax) {
    if (targets && state.training) training_update(layout, state, targets, scratch.tile, out);
  }
  if (state.label_bytes == 1) {
    count_labels(samples, static_cast<uint8_t*>(state.label_counts), out.label);
  } else if (state.label_bytes == 2) {
    count_labels(samples, static_cast<uint16_t*>(state.label_counts), out.label);
  } else if (state.label_bytes == 4) {
    count_labels(samples, static_cast<int32_t*>(state.label_counts), out.label);
  }
}

template <Activation activation, class Layout>
inline void update_in(const State& state, const Batch& batch, const uint8_t* status, int64_t begin,
                      int64_t end, const Scratch& scratch) {
  const int64_t classes = state.classes, most = samples_at_once(classes);
  const bool with_teacher = state.teacher_discrepancy;
  Gather<Layout> gather = {state, batch, status, begin, end, begin};
  Samples samples[2] = {}, teacher;
  Samples *now = &samples[0], *next = &samples[1];
  for (gather.next(*now, most); now->count;) {
    gather.next(*next, most);
    now->next = next;
    take_logits<activation>(*now, batch.dtype, classes, scratch.x);
    if (with_teacher) {
      teacher = *now;
      for (int s = 0; s < now->count; ++s) {
        teacher.source.row[s] = row_of(batch.teacher_logits, batch.dtype, now->row[s], classes);
      }
      take_logits<activation>(teacher, batch.dtype, classes, scratch.teacher_x);
    }
    update_samples<activation, Layout>(state, batch.targets, *now,
                                       with_teacher ? &teacher : nullptr, scratch);
    Samples* const done = now;
    now = next;
    next = done;
  }
}

// Floats of one array of Scratch.
inline int64_t block_floats(int64_t classes) {
  const bool tile = classes <= kTileClasses;
  return tile ? classes * kLanes : samples_at_once(classes) * padded(classes);
}

int64_t scratch_floats(int64_t classes) { return 6 * block_floats(classes); }

template <Activation activation>
inline void update_rows_with(const State& state, const Batch& batch, const uint8_t* status,
                             int64_t begin, int64_t end, float* scratch) {
  const int64_t n = block_floats(state.classes);
  const Scratch parts = {scratch,         scratch + n,     scratch + 2 * n,
                         scratch + 3 * n, scratch + 4 * n, scratch + 5 * n};
  if (state.classes <= kTileClasses) {
    update_in<activation, TileLayout>(state, batch, status, begin, end, parts);
  } else {
    update_in<activation, RowLayout>(state, batch, status, begin, end, parts);
  }
}

void update_rows(const State& state, const Batch& batch, const uint8_t* status, int64_t begin,
                 int64_t end, float* scratch) {
  if (state.activation == Activation::softmax) {
    update_rows_with<Activation::softmax>(state, batch, status, begin, end, scratch);
  } else {
    update_rows_with<Activation::sigmoid>(state, batch, status, begin, end, scratch);
  }
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

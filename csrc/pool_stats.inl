// The update of the pool statistics, for one instruction set.
//
// Samples are taken kLanes at a time, and what there is one of per sample (the sum of exponentials,
// the label, ...) sits in the lanes of one vector. What there is one of per class is walked in one
// of two layouts that share the code: with few classes, class by class with a sample in each lane
// (a tile, transposed on loading and on storing); with many, sample by sample with a class in each
// lane.
#include <cstdint>

#include "pool_stats.h"
#include "pool_stats_vector.inl"

namespace dynal {
namespace DYNAL_ISA {
namespace stats {

using pool_stats::Batch;
using pool_stats::Float;
using pool_stats::State;

constexpr int64_t kTileClasses = 2 * kLanes;  // up to here, samples stand side by side
constexpr int64_t kBlockFloats = 4096;        // exponentials of a block: half of a small L1 cache
constexpr int64_t kLineBytes = 64;

inline int64_t padded(int64_t classes) { return (classes + kLanes - 1) / kLanes * kLanes; }

// How many samples of this many classes are worked on together.
inline int64_t samples_at_once(int64_t classes) {
  if (classes <= kTileClasses) return kLanes;
  const int64_t fitting = kBlockFloats / padded(classes);
  return fitting < 1 ? 1 : fitting < kLanes ? fitting : kLanes;
}

struct Samples {
  int count;
  bool consecutive;     // kLanes of them, with ids that follow each other
  int64_t row[kLanes];  // in the batch
  int64_t id[kLanes];
  int64_t source_bytes;
  const char* source[kLanes];                       // logits (classes) as given
  const float* x[kLanes];                           // in float32, minus shift
  alignas(DYNAL_VECTOR_BYTES) float shift[kLanes];  // 0, but for float64 their maximum
  bool finite[kLanes];
  bool all_finite;
  const Samples* next;  // those whose turn it is next: what they need is asked for meanwhile
};

// The softmax of the samples: p_c = e_c * inverse. A vector has one lane per sample.
struct Output {
  float* e;  // (classes, kLanes) or (samples, padded classes)
  alignas(DYNAL_VECTOR_BYTES) float inverse[kLanes];  // 1 / sum of e
  vf entropy;                                         // in nats
  vf second;  // e of the second largest logit; that of the largest is 1
  vi label;   // the lowest class with the largest logit
  vi bad;     // not 0 where a logit is not finite
};

struct TopTwo {
  vf first, second;
  vi label;
};

inline TopTwo no_top_two() { return {splat(-__builtin_inff()), splat(-__builtin_inff()), vi{}}; }

inline void keep_top_two(TopTwo& top, vf x, vi label) {
  const vi larger = x > top.first;
  top.second = maximum(top.second, minimum(top.first, x));
  top.first = select(larger, x, top.first);
  top.label = select(larger, label, top.label);
}

// The top two of both, lane by lane; of equal logits the lower class counts.
inline void merge_top_two(TopTwo& top, const TopTwo& other) {
  const vi better =
      (other.first > top.first) | ((other.first == top.first) & (other.label < top.label));
  top.second = maximum(maximum(top.second, other.second), minimum(top.first, other.first));
  top.first = maximum(top.first, other.first);
  top.label = select(better, other.label, top.label);
}

inline vi non_finite(vf x) { return (float_to_bits(x) & 0x7f800000) == 0x7f800000; }

struct Sums {
  vf exponentials, weighted;  // of e and of e * (x - largest x)
};

inline vf add_exponentials(Sums& sums, vf z) {
  const vf e = exp_nonpositive(z);
  sums.exponentials += e;
  sums.weighted += e * maximum(z, splat(-88.0f));  // 0 * -inf would be NaN
  return e;
}

inline void finish(Output& out, const TopTwo& top, const Sums& sums) {
  const vf inverse = 1.0f / sums.exponentials;
  store(out.inverse, inverse);
  out.entropy = log_from_one(sums.exponentials) - sums.weighted * inverse;
  out.second = exp_nonpositive(top.second - top.first);
  out.label = top.label;
}

#define DYNAL_MERGE_SWAPPED(SWAP)                                  \
  merge_top_two(top, {DYNAL_SHUFFLE(top.first, top.first, SWAP),   \
                      DYNAL_SHUFFLE(top.second, top.second, SWAP), \
                      DYNAL_SHUFFLE(top.label, top.label, SWAP)});

// Rows of partial results become one lane per sample.
inline TopTwo merge_rows(vf* first, vf* second, vf* label, int count) {
  TopTwo merged = no_top_two();
  if (count > kLanes / 4) {
    for (int s = count; s < kLanes; ++s) first[s] = second[s] = label[s] = vf{};
    transpose(first);
    transpose(second);
    transpose(label);
    for (int i = 0; i < kLanes; ++i) {
      merge_top_two(merged, {first[i], second[i], float_to_bits(label[i])});
    }
    return merged;
  }
  for (int s = 0; s < count; ++s) {
    TopTwo top = {first[s], second[s], float_to_bits(label[s])};
    DYNAL_FOR_SWAPS(DYNAL_MERGE_SWAPPED)
    merged.first[s] = top.first[0];
    merged.second[s] = top.second[0];
    merged.label[s] = top.label[0];
  }
  return merged;
}

inline vi any_rows(vf* rows, int count) {
  vi any = {};
  for (int s = 0; s < count; ++s) {
    const vi row = float_to_bits(rows[s]);
    int32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= row[i];
    any[s] = bits;
  }
  return any;
}

struct Scratch {
  float* x;          // (samples, classes) logits that had to be converted
  float* teacher_x;  // the same, of the teacher
  float* tile;       // (classes, kLanes) logits, side by side
  float* e;          // exponentials
  float* q;          // the teacher's
  float* growth;     // what M2 grows by, laid out like them
};

// With few classes: position c of an array of exponentials is a vector at c * kLanes.
struct TileLayout {
  static constexpr bool kTile = true;
  const Samples& samples;
  int64_t classes;

  // Replace the values v of each sample's row of a state array by f(v, offset, s, total): offset
  // into the exponentials, s the sample of the lanes (0: all). Returns what f added to total, per
  // sample.
  template <class T, class F>
  vf update(T* array, F f) const {
    vf total = {};
    for (int64_t c = 0; c < classes; c += kLanes) {
      const int64_t n = classes - c < kLanes ? classes - c : kLanes;
      vf rows[kLanes];
      for (int s = 0; s < kLanes; ++s) rows[s] = load_n(array + samples.id[s] * classes + c, n);
      transpose(rows);
      for (int64_t j = 0; j < n; ++j) rows[j] = f(rows[j], (c + j) * kLanes, 0, total);
      transpose(rows);
      for (int s = 0; s < samples.count; ++s) {
        if (samples.finite[s]) store_n(array + samples.id[s] * classes + c, rows[s], n);
      }
    }
    return total;
  }

  // The same walk over arrays of exponentials.
  template <class F>
  vf sum(F f) const {
    vf total = {};
    for (int64_t c = 0; c < classes; ++c) f(c * kLanes, 0, total);
    return total;
  }

  static vf spread(const float* per_sample, int) { return load(per_sample); }

  // The logits at an offset into the exponentials.
  vf logits(const Scratch& scratch, int64_t offset, int) const {
    return load(scratch.tile + offset) + load(samples.shift);
  }

  static void softmax(const Samples& samples, int64_t classes, float* tile, Output& out) {
    for (int64_t c = 0; c < classes; c += kLanes) {
      const int64_t n = classes - c < kLanes ? classes - c : kLanes;
      vf rows[kLanes];
      for (int s = 0; s < kLanes; ++s) rows[s] = load_n(samples.x[s] + c, n);
      transpose(rows);
      for (int64_t j = 0; j < n; ++j) store(tile + (c + j) * kLanes, rows[j]);
    }
    TopTwo top = no_top_two();
    out.bad = vi{};
    for (int64_t c = 0; c < classes; ++c) {
      const vf x = load(tile + c * kLanes);
      out.bad |= non_finite(x);
      keep_top_two(top, x, splat((int32_t)c));
    }
    Sums sums = {};
    for (int64_t c = 0; c < classes; ++c) {
      store(out.e + c * kLanes, add_exponentials(sums, load(tile + c * kLanes) - top.first));
    }
    finish(out, top, sums);
  }
};

// With many classes: classes c.. of sample s are a vector at s * padded(classes) + c.
struct RowLayout {
  static constexpr bool kTile = false;
  const Samples& samples;
  int64_t classes;

  template <class T, class F>
  vf update(T* array, F f) const {
    const int64_t whole = classes / kLanes * kLanes, rest = classes - whole;
    vf totals[kLanes];
    for (int s = 0; s < samples.count; ++s) {
      totals[s] = vf{};
      if (!samples.finite[s]) continue;
      T* row = array + samples.id[s] * classes;
      const T* next = array + samples.next->id[s] * classes;
      const int64_t offset = s * padded(classes);
      vf total = {};
      for (int64_t c = 0; c < whole; c += kLanes) {
        __builtin_prefetch(next + c, 1);
        store(row + c, f(load(row + c), offset + c, s, total));
      }
      __builtin_prefetch(next + classes - 1, 1);
      if (rest) store_n(row + whole, f(load_n(row + whole, rest), offset + whole, s, total), rest);
      totals[s] = total;
    }
    return sum_rows(totals, samples.count);
  }

  template <class F>
  vf sum(F f) const {
    vf totals[kLanes];
    for (int s = 0; s < samples.count; ++s) {
      totals[s] = vf{};
      for (int64_t c = 0; c < classes; c += kLanes) f(s * padded(classes) + c, s, totals[s]);
    }
    return sum_rows(totals, samples.count);
  }

  static vf spread(const float* per_sample, int s) { return splat(per_sample[s]); }

  // The logits at an offset into the exponentials; 0 beyond the last class.
  vf logits(const Scratch&, int64_t offset, int s) const {
    const int64_t c = offset - s * padded(classes), left = classes - c;
    const vf shift = splat(samples.shift[s]);
    if (left >= kLanes) return load(samples.x[s] + c) + shift;
    return load_n(samples.x[s] + c, left) + select(kLaneIndex < splat((int32_t)left), shift, vf{});
  }

  static void softmax(const Samples& samples, int64_t classes, float*, Output& out) {
    const int64_t whole = classes / kLanes * kLanes, rest = classes - whole;
    const vi in_rest = kLaneIndex < splat((int32_t)rest);
    vf first[kLanes], second[kLanes], label[kLanes], bad[kLanes];
    for (int s = 0; s < samples.count; ++s) {
      const float* x = samples.x[s];
      TopTwo top = no_top_two();
      vi at = kLaneIndex, wrong = {};
      for (int64_t c = 0; c < whole; c += kLanes, at += kLanes) {
        const vf v = load(x + c);
        wrong |= non_finite(v);
        keep_top_two(top, v, at);
      }
      if (rest) {
        const vf v = load_n(x + whole, rest);
        wrong |= non_finite(v);
        keep_top_two(top, select(in_rest, v, splat(-__builtin_inff())), at);
      }
      first[s] = top.first;
      second[s] = top.second;
      label[s] = bits_to_float(top.label);
      bad[s] = bits_to_float(wrong);
    }
    TopTwo top = merge_rows(first, second, label, samples.count);
    out.bad = any_rows(bad, samples.count);
    alignas(DYNAL_VECTOR_BYTES) float largest[kLanes];
    store(largest, top.first);
    vf exponentials[kLanes], weighted[kLanes];
    for (int s = 0; s < samples.count; ++s) {
      const float* x = samples.x[s];
      const char* next = samples.next->source[s];
      float* e = out.e + s * padded(classes);
      const vf top = splat(largest[s]);
      Sums sums = {};
      for (int64_t c = 0; c < whole; c += kLanes) {
        __builtin_prefetch(next + c * samples.source_bytes);
        store(e + c, add_exponentials(sums, load(x + c) - top));
      }
      if (rest) {
        const vf z = load_n(x + whole, rest) - top;
        store(e + whole, add_exponentials(sums, select(in_rest, z, splat(-__builtin_inff()))));
      }
      exponentials[s] = sums.exponentials;
      weighted[s] = sums.weighted;
    }
    finish(out, top, {sum_rows(exponentials, samples.count), sum_rows(weighted, samples.count)});
  }
};

// Per-sample values come and go by lanes.
inline void add(const Samples& samples, float* array, vf x) {
  if (samples.consecutive && samples.all_finite) {
    store(array + samples.id[0], load(array + samples.id[0]) + x);
    return;
  }
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) array[samples.id[s]] += x[s];
  }
}

inline void assign(const Samples& samples, float* array, vf x) {
  if (samples.consecutive && samples.all_finite) {
    store(array + samples.id[0], x);
    return;
  }
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) array[samples.id[s]] = x[s];
  }
}

// Raises the count and returns 1 / count of each sample.
inline vf next_rate(const Samples& samples, int32_t* count) {
  vi n = splat(1);
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) n[s] = ++count[samples.id[s]];
  }
  return 1.0f / __builtin_convertvector(n, vf);
}

// Welford's update of the mean; returns the growth of M2 per sample and, at `growth`, per class:
// (x - old mean) (x - new mean) = (x - old mean)^2 (1 - 1 / count), which cannot come out negative.
template <class Layout, class Observation>
inline vf welford_update(const Layout& layout, int32_t* count, float* mean, float* growth,
                         Observation observation) {
  alignas(DYNAL_VECTOR_BYTES) float rates[kLanes], rests[kLanes];
  const vf rate = next_rate(layout.samples, count);
  store(rates, rate);
  store(rests, 1.0f - rate);
  return layout.update(mean, [&](vf old, int64_t offset, int s, vf& m2) {
    const vf delta = observation(offset, s) - old;
    const vf grown = delta * delta * Layout::spread(rests, s);
    m2 += grown;
    if (growth) store(growth + offset, grown);
    return old + delta * Layout::spread(rates, s);
  });
}

template <class T>
inline void count_labels(const Samples& samples, T* counts, int64_t classes, vi label) {
  for (int s = 0; s < samples.count; ++s) {
    if (samples.finite[s]) ++counts[samples.id[s] * classes + label[s]];
  }
}

// ||p - array||_2^2 per sample; the array becomes p.
template <class Layout, class T>
inline vf replace_output(const Layout& layout, T* array, const Output& out) {
  return layout.update(array, [&](vf old, int64_t offset, int s, vf& squares) {
    const vf p = load(out.e + offset) * Layout::spread(out.inverse, s);
    squares += (p - old) * (p - old);
    return p;
  });
}

template <class Layout>
inline vf replace_output(const Layout& layout, void* array, int bytes, const Output& out) {
  if (bytes == 2) return replace_output(layout, static_cast<uint16_t*>(array), out);
  return replace_output(layout, static_cast<float*>(array), out);
}

template <class Layout>
inline void update_samples(const State& state, Samples& samples, const Samples* teacher,
                           const Scratch& scratch) {
  const int64_t classes = state.classes;
  const Layout layout = {samples, classes};
  Output out, teacher_out;
  vi bad = {};
  if (teacher) {
    teacher_out.e = scratch.q;
    Layout::softmax(*teacher, classes, scratch.tile, teacher_out);
    bad = teacher_out.bad;
  }
  out.e = scratch.e;
  Layout::softmax(samples, classes, scratch.tile, out);
  bad |= out.bad;
  samples.all_finite = true;
  for (int s = 0; s < samples.count; ++s) {
    samples.finite[s] = !bad[s];
    if (bad[s]) {
      samples.all_finite = false;
      state.stamp[samples.id[s]] |= pool_stats::kNonFinite;
    } else if (state.label_counts) {
      __builtin_prefetch(static_cast<char*>(state.label_counts) +
                             (samples.id[s] * classes + out.label[s]) * state.label_bytes,
                         1);
    }
  }

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
  if (state.logit_count) {
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
    assign(samples, state.cycle_discrepancy,
           replace_output(layout, state.output, state.output_bytes, out));
  }
  if (teacher) {
    const vf squares = layout.sum([&](int64_t offset, int s, vf& total) {
      const vf d = load(out.e + offset) * Layout::spread(out.inverse, s) -
                   load(teacher_out.e + offset) * Layout::spread(teacher_out.inverse, s);
      total += d * d;
    });
    assign(samples, state.teacher_discrepancy, squares);
  }
  if (state.last_entropy) assign(samples, state.last_entropy, out.entropy);
  if (state.last_top) assign(samples, state.last_top, load(out.inverse));
  if (state.last_margin) {
    assign(samples, state.last_margin, (1.0f - out.second) * load(out.inverse));
  }
  if (state.label_bytes == 1) {
    count_labels(samples, static_cast<uint8_t*>(state.label_counts), classes, out.label);
  } else if (state.label_bytes == 2) {
    count_labels(samples, static_cast<uint16_t*>(state.label_counts), classes, out.label);
  } else if (state.label_bytes == 4) {
    count_labels(samples, static_cast<int32_t*>(state.label_counts), classes, out.label);
  }
}

// float16 or bfloat16.
inline void halves_to_floats(const uint16_t* from, Float dtype, int64_t n, float* to) {
  int64_t i = 0;
  if (dtype == Float::f16) {
    for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
    if (i < n) store_n(to + i, load_n(from + i, n - i), n - i);
    return;
  }
  for (; i < n; ++i) {
    const uint32_t bits = (uint32_t)from[i] << 16;
    __builtin_memcpy(to + i, &bits, 4);
  }
}

// A row of logits of another type becomes float32 at `x`. Returns what was taken off.
inline float convert_row(const void* logits, Float dtype, int64_t classes, float* x) {
  if (dtype == Float::f64) {
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

inline int64_t bytes_of(Float dtype) {
  return dtype == Float::f64 ? 8 : dtype == Float::f32 ? 4 : 2;
}

inline const char* row_of(const void* array, Float dtype, int64_t row, int64_t columns) {
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
    const int64_t row_bytes = state.classes * 4;
    if (Layout::kTile && state.mean) {
      if (samples.consecutive) {
        prefetch_bytes(state.mean + samples.id[0] * state.classes, kLanes * row_bytes);
      } else {
        for (int s = 0; s < samples.count; ++s) {
          prefetch_bytes(state.mean + samples.id[s] * state.classes, row_bytes);
        }
      }
    }
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
inline void take_logits(Samples& samples, Float dtype, int64_t classes, float* converted) {
  for (int s = 0; s < samples.count; ++s) {
    if (dtype == Float::f32) {
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

template <class Layout>
inline void update_rows(const State& state, const Batch& batch, const uint8_t* status,
                        int64_t begin, int64_t end, const Scratch& scratch) {
  const int64_t classes = state.classes, most = samples_at_once(classes);
  const bool with_teacher = state.teacher_discrepancy;
  Gather<Layout> gather = {state, batch, status, begin, end};
  Samples samples[2] = {}, teacher;
  Samples *now = &samples[0], *next = &samples[1];
  for (gather.next(*now, most); now->count;) {
    gather.next(*next, most);
    now->next = next;
    take_logits(*now, batch.dtype, classes, scratch.x);
    if (with_teacher) {
      teacher = *now;
      for (int s = 0; s < now->count; ++s) {
        teacher.source[s] = row_of(batch.teacher_logits, batch.dtype, now->row[s], classes);
      }
      take_logits(teacher, batch.dtype, classes, scratch.teacher_x);
    }
    update_samples<Layout>(state, *now, with_teacher ? &teacher : nullptr, scratch);
    Samples* const done = now;
    now = next;
    next = done;
  }
}

inline int64_t block_floats(int64_t classes) {
  const bool tile = classes <= kTileClasses;
  return tile ? classes * kLanes : samples_at_once(classes) * padded(classes);
}

}  // namespace stats

int64_t pool_stats_scratch(int64_t classes) { return 6 * stats::block_floats(classes); }

// Rows begin <= row < end of the batch; scratch has pool_stats_scratch floats, aligned to 64 bytes.
void pool_stats_rows(const pool_stats::State& state, const pool_stats::Batch& batch,
                     const uint8_t* status, int64_t begin, int64_t end, float* scratch) {
  const int64_t n = stats::block_floats(state.classes);
  const stats::Scratch parts = {scratch,         scratch + n,     scratch + 2 * n,
                                scratch + 3 * n, scratch + 4 * n, scratch + 5 * n};
  if (state.classes <= stats::kTileClasses) {
    stats::update_rows<stats::TileLayout>(state, batch, status, begin, end, parts);
  } else {
    stats::update_rows<stats::RowLayout>(state, batch, status, begin, end, parts);
  }
}

}  // namespace DYNAL_ISA
}  // namespace dynal

#include "pool_stats_head.inl"

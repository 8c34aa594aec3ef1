// How samples and classes lie in vectors.
//
// Samples are taken kLanes at a time, and what there is one of per sample (the sum of exponentials,
// the label, ...) sits in the lanes of one vector. What there is one of per class is walked in one
// of two layouts that share the code: with few classes, class by class with a sample in each lane
// (a tile, transposed on loading and on storing); with many, sample by sample with a class in each
// lane.
#pragma once

#include <cstdint>

#include "../common/vector.inl"
#include "pool_stats.h"

namespace dynal {
namespace DYNAL_ISA {
namespace stats {

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
  const char* soon[2][kLanes];                      // rows of the state (classes) that follow
  int64_t soon_bytes[2];                            // of one of their elements
  const float* x[kLanes];                           // in float32, minus shift
  alignas(DYNAL_VECTOR_BYTES) float shift[kLanes];  // 0, but for float64 their maximum
  bool finite[kLanes];
  bool all_finite;
  // Those whose turn it is next: their rows are asked for meanwhile, those of soon[0] half during
  // the softmax and half during the update, as more at a time than memory delivers would be waited
  // for.
  const Samples* next;
};

struct Scratch {
  float* x;          // (samples, classes) logits that had to be converted
  float* teacher_x;  // the same, of the teacher
  float* tile;       // (classes, kLanes) logits, side by side
  float* e;          // exponentials
  float* q;          // the teacher's
  float* growth;     // what M2 grows by, laid out like them
};

// With few classes: class c of all samples is a vector at c * kLanes.
struct TileLayout {
  static constexpr bool kTile = true;
  const Samples& samples;
  int64_t classes;

  int64_t position(int64_t s, int64_t c) const { return c * kLanes + s; }

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

  // The same walk over a state array that stays as it is.
  template <class T, class F>
  vf sum(const T* array, F f) const {
    vf total = {};
    for (int64_t c = 0; c < classes; c += kLanes) {
      const int64_t n = classes - c < kLanes ? classes - c : kLanes;
      vf rows[kLanes];
      for (int s = 0; s < kLanes; ++s) rows[s] = load_n(array + samples.id[s] * classes + c, n);
      transpose(rows);
      for (int64_t j = 0; j < n; ++j) f(rows[j], (c + j) * kLanes, 0, total);
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
};

// With many classes: classes c.. of sample s are a vector at s * padded(classes) + c.
struct RowLayout {
  static constexpr bool kTile = false;
  const Samples& samples;
  int64_t classes;

  int64_t position(int64_t s, int64_t c) const { return s * padded(classes) + c; }

  template <class T, class F>
  vf update(T* array, F f) const {
    const int64_t whole = classes / kLanes * kLanes, rest = classes - whole;
    vf totals[kLanes];
    for (int s = 0; s < samples.count; ++s) {
      totals[s] = vf{};
      if (!samples.finite[s]) continue;
      T* row = array + samples.id[s] * classes;
      const int64_t offset = position(s, 0), half = classes * samples.soon_bytes[0] / 2;
      const char* soon = samples.next->soon[0][s] + half;
      vf total = {};
      for (int64_t c = 0; c < whole; c += kLanes) {
        __builtin_prefetch(soon + c * samples.soon_bytes[0] / 2, 1);
        store(row + c, f(load(row + c), offset + c, s, total));
      }
      __builtin_prefetch(soon + half - 1, 1);
      if (rest) store_n(row + whole, f(load_n(row + whole, rest), offset + whole, s, total), rest);
      totals[s] = total;
    }
    return sum_rows(totals, samples.count);
  }

  template <class T, class F>
  vf sum(const T* array, F f) const {
    vf totals[kLanes];
    for (int s = 0; s < samples.count; ++s) {
      totals[s] = vf{};
      const T* row = array + samples.id[s] * classes;
      for (int64_t c = 0; c < classes; c += kLanes) {
        const int64_t n = classes - c < kLanes ? classes - c : kLanes;
        f(load_n(row + c, n), position(s, c), s, totals[s]);
      }
    }
    return sum_rows(totals, samples.count);
  }

  template <class F>
  vf sum(F f) const {
    vf totals[kLanes];
    for (int s = 0; s < samples.count; ++s) {
      totals[s] = vf{};
      for (int64_t c = 0; c < classes; c += kLanes) f(position(s, c), s, totals[s]);
    }
    return sum_rows(totals, samples.count);
  }

  static vf spread(const float* per_sample, int s) { return splat(per_sample[s]); }

  // The logits at an offset into the exponentials; 0 beyond the last class.
  vf logits(const Scratch&, int64_t offset, int s) const {
    const int64_t c = offset - position(s, 0), left = classes - c;
    const vf shift = splat(samples.shift[s]);
    if (left >= kLanes) return load(samples.x[s] + c) + shift;
    return load_n(samples.x[s] + c, left) + select(kLaneIndex < splat((int32_t)left), shift, vf{});
  }
};

}  // namespace stats
}  // namespace DYNAL_ISA
}  // namespace dynal

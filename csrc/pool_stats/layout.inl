// How samples and classes lie in vectors.
//
// Up to kLanes samples are updated together. A value per sample (a label, a sum of exponentials) is
// a lane of one vector. Values per class are visited in one of two layouts, which share the code of
// the update. With few classes, each vector holds one class of all samples: a tile, which is
// transposed when it is loaded and stored. With many classes, each vector holds kLanes classes of
// one sample.
#pragma once

#include <cstdint>

#include "../common/vector.inl"
#include "pool_stats.h"

namespace dynal {
namespace pool_stats {
namespace DYNAL_ISA {
namespace {

using namespace dynal::DYNAL_ISA;

constexpr int64_t kTileClasses = 2 * kLanes;  // the most classes of a tile
constexpr int64_t kLineBytes = 64;
constexpr int64_t kAheadRows = 24;  // how far ahead scattered values are prefetched

inline int64_t padded(int64_t classes) { return round_up(classes, kLanes); }

// How many samples of this many classes are updated together: their exponentials stay in L1.
inline int64_t samples_at_once(int64_t classes) {
  if (classes <= kTileClasses) return kLanes;
  const int64_t fitting = kHalfL1Floats / padded(classes);
  return fitting < 1 ? 1 : fitting < kLanes ? fitting : kLanes;
}

// One row (classes) per sample, to prefetch.
struct Rows {
  const char* row[kLanes];
  int64_t item_bytes;
};

// An address of a row in the next turn, which may have fewer samples: a number, as no row may be
// there.
inline uintptr_t address(const char* row) { return reinterpret_cast<uintptr_t>(row); }

template <int kWrite>
DYNAL_INLINE void prefetch_line(uintptr_t at) {
  __builtin_prefetch(reinterpret_cast<const void*>(at), kWrite);
}

struct Samples {
  int count;
  bool consecutive;     // kLanes samples whose ids follow each other
  int64_t row[kLanes];  // in the batch
  int64_t id[kLanes];
  int64_t start[kLanes];   // of the sample's row in a state array (samples, classes)
  Rows source;             // logits as given
  const float* x[kLanes];  // logits in float32, minus shift
  alignas(DYNAL_VECTOR_BYTES) float shift[kLanes];  // float64: the maximum; else 0
  bool finite[kLanes];
  uint32_t updated;  // bit s: sample s is finite
  bool all_finite;   // kLanes of them
  // Rows of the state that the update reads. `early` is prefetched during the turn before this one:
  // half of each row during the softmax and half during the update, because a core has a limited
  // number of loads in flight. `late` is prefetched while the largest logits are found.
  Rows early, late;
  const Samples* next;  // the next turn's
};

struct Scratch {
  float* x;          // (samples, classes): logits converted to float32
  float* teacher_x;  // the teacher's
  float* tile;       // (classes, kLanes): logits, transposed
  float* e;          // exponentials, in the layout
  float* teacher_e;  // the teacher's
  float* growth;     // what M2 grows by, in the layout
};

// Few classes: class c of all samples is the vector at offset c * kLanes.
struct TileLayout {
  static constexpr bool kTile = true;
  const Samples& samples;
  int64_t classes;

  int64_t position(int64_t s, int64_t c) const { return c * kLanes + s; }

  // Replaces the values v of each sample's row of a state array by f(v, offset, s, total). `offset`
  // is that of the same classes in the exponentials, s the sample that all lanes belong to (0 in a
  // tile, where each lane has its own). Returns what f adds to total, per sample.
  template <class T, class F>
  vf update(T* array, F f) const {
    vf total = {};
    in_quads([&](int64_t c, int64_t n) __attribute__((always_inline)) {
      vf columns[4];
      const auto row = [&](int s) { return array + samples.start[s] + c; };
      load_columns(row, n, columns);
      for (int64_t j = 0; j < n; ++j) columns[j] = f(columns[j], (c + j) * kLanes, 0, total);
      store_columns(row, n, columns, samples.updated);
    });
    return total;
  }

  // The same, but only reads the state array.
  template <class T, class F>
  vf sum(const T* array, F f) const {
    vf total = {};
    in_quads([&](int64_t c, int64_t n) __attribute__((always_inline)) {
      vf columns[4];
      load_columns([&](int s) { return array + samples.start[s] + c; }, n, columns);
      for (int64_t j = 0; j < n; ++j) f(columns[j], (c + j) * kLanes, 0, total);
    });
    return total;
  }

  // Calls f(c, n) for n classes from c on: four, and the rest.
  template <class F>
  DYNAL_INLINE void in_quads(F f) const {
    int64_t c = 0;
    for (; c + 4 <= classes; c += 4) f(c, 4);
    if (classes - c == 2) {
      f(c, 2);
    } else if (c < classes) {
      f(c, classes - c);
    }
  }

  // The same over the exponentials: f(offset, s, total).
  template <class F>
  vf sum(F f) const {
    vf total = {};
    for (int64_t c = 0; c < classes; ++c) f(c * kLanes, 0, total);
    return total;
  }

  // The values per sample, for the lanes of a vector of sample s.
  static vf spread(const float* per_sample, int) { return load(per_sample); }

  // The logits that belong to an offset.
  vf logits(const Scratch& scratch, int64_t offset, int) const {
    return load(scratch.tile + offset) + load(samples.shift);
  }
};

// Many classes: classes c to c + kLanes of sample s are the vector at s * padded(classes) + c.
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
      T* row = array + samples.start[s];
      const Rows& early = samples.next->early;
      const int64_t offset = position(s, 0), half = classes * early.item_bytes / 2;
      const uintptr_t second_half = address(early.row[s]) + half;
      vf total = {};
      for (int64_t c = 0; c < whole; c += kLanes) {
        prefetch_line<1>(second_half + c * early.item_bytes / 2);
        store(row + c, f(load(row + c), offset + c, s, total));
      }
      prefetch_line<1>(second_half + half - 1);
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
      const T* row = array + samples.start[s];
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

  // The logits that belong to an offset; 0 beyond the last class.
  vf logits(const Scratch&, int64_t offset, int s) const {
    const int64_t c = offset - position(s, 0), left = classes - c;
    const vf shift = splat(samples.shift[s]);
    if (left >= kLanes) return load(samples.x[s] + c) + shift;
    return load_n(samples.x[s] + c, left) + select(kLaneIndex < splat((int32_t)left), shift, vf{});
  }
};

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace pool_stats
}  // namespace dynal

// The nearest clusters of each row, in integers (shorts.inl).
#pragma once

#include "filter.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

// Packs centers to position `at` of the panels.
void pack(const Space& space, const Points& y, const int32_t* centers, int64_t count,
          const Panels& panels, int64_t at, const Scratch& scratch) {
  pack_short_centers(space, y, centers, count, with_panels(space, scratch, panels, at));
}

// Packs rows [begin, end) to where they are among the packed ones.
inline void pack_short_range(const Space& space, const Points& x, const int32_t* rows,
                             int64_t begin, int64_t end, const PackedRows& packed,
                             const Scratch& scratch) {
  const int64_t width = short_columns(space);
  for (int64_t i = begin; i < end; ++i) {
    packed.units[i] =
        short_row(space, x, rows[i], packed.rows + i * width, short_buffer(scratch), scratch.x);
  }
}

void pack_rows(const Space& space, const Points& x, const int32_t* rows, int64_t count,
               const PackedRows& packed, const Work& work) {
  const int parts = threads_for(count * space.columns * kPackWork, work.threads);
  in_parts(parts, [&](int part) {
    pack_short_range(space, x, rows, count * part / parts, count * (part + 1) / parts, packed,
                     work.scratches[part]);
  });
}

// The positions of the `wanted` least values of terms - 2 dots, at `least` (wanted,).
inline void least_of(const float* terms, const float* dots, int64_t count, int64_t wanted,
                     float* values, int32_t* least) {
  for (int64_t i = 0; i < wanted; ++i) values[i] = __builtin_inff();
  for (int64_t c = 0; c < count; c += kLanes) {
    const vf value = load(terms + c) - 2.0f * load(dots + c);
    const auto below = value < splat(values[wanted - 1]);
    bool any = false;
    for (int j = 0; j < kLanes; ++j) any |= below[j] != 0;
    if (!any) continue;
    for (int j = 0; j < kLanes; ++j) {
      if (!(value[j] < values[wanted - 1])) continue;
      int64_t at = wanted - 1;
      for (; at > 0 && value[j] < values[at - 1]; --at) {
        values[at] = values[at - 1];
        least[at] = least[at - 1];
      }
      values[at] = value[j];
      least[at] = static_cast<int32_t>(c + j);
    }
  }
}

constexpr int64_t kTilesAtOnce = 8;

// Packs rows (count,), and finds the nearest clusters (count, probes) of each, at least of all the
// first. scratch.dots has room for all centroids.
void nearest(const Space& space, const Points& x, const int32_t* rows, int64_t count,
             const Centroids& centroids, int64_t probes, const PackedRows& packed, int32_t* nearest,
             const Work& work) {
  constexpr int64_t kStep = kTilesAtOnce * kTileRows;
  const int64_t stride = round_up(centroids.count, kPanel);
  int64_t next = 0;
  in_parts(threads_for(count * centroids.count * space.columns, work.threads), [&](int part) {
    const Scratch scratch = with_panels(space, work.scratches[part], centroids.panels, 0);
    float* const values = scratch.dots + kTileRows * stride;  // (probes,)
    while (true) {
      const int64_t begin = __atomic_fetch_add(&next, kStep, __ATOMIC_RELAXED);
      if (begin >= count) break;
      const int64_t end = begin + kStep < count ? begin + kStep : count;
      pack_short_range(space, x, rows, begin, end, packed, scratch);
      for (int64_t row = begin; row < end; row += kTileRows) {
        int32_t places[kTileRows];
        const int64_t here = end - row < kTileRows ? end - row : kTileRows;
        for (int64_t r = 0; r < here; ++r) places[r] = static_cast<int32_t>(row + r);
        take_short_rows(space, packed, places, here, scratch);
        multiply_short_panels(space, scratch, 0, centroids.count, stride);
        for (int64_t r = 0; r < here; ++r) {
          least_of(scratch.low, scratch.dots + r * stride, centroids.count, probes, values,
                   nearest + (row + r) * probes);
        }
      }
    }
  });
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal

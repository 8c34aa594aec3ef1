// Rows catch up with the picks that they lack, in order: a rate drops whenever a pick is nearer
// than those before, and the firing time moves back.
#pragma once

#include "../farthest_first/exact.inl"
#include "../farthest_first/filter.inl"
#include "../farthest_first/tile.inl"
#include "kernels.h"

namespace dynal {
namespace kmeans_plusplus {
namespace DYNAL_ISA {
namespace {

using namespace farthest_first;
using namespace farthest_first::DYNAL_ISA;
using kmeans_plusplus::Kernels;

// What is left of a clock at `time` runs on at a lower rate (reference.py). The division keeps the
// compiler from fusing the product with the sum.
inline double slowed(double firing, double time, float rate, float lower) {
  if (lower == 0) return __builtin_inf();
  return time + (firing - time) * static_cast<double>(rate) / static_cast<double>(lower);
}

// Applies the picks of a block from `begin` on to a row. packed: the block; dots: the row's
// products.
inline void advance_row(const Space& space, const Points& x, int64_t row, const Points& y,
                        const Fired& block, int64_t begin, const Scratch& packed, const float* dots,
                        const Clocks& clocks, const Scratch& scratch) {
  const RowTerms terms(space, space.slack, x, row);
  float rate = clocks.rates[row];
  double firing = clocks.firing[row];
  for (int64_t c = begin / kLanes * kLanes; c < block.count && rate > 0; c += kLanes) {
    const vf low = (terms.low + load(packed.low + c)) - 2.0f * load(dots + c);
    const auto below = low < splat(rate);
    bool any = false;
    for (int j = 0; j < kLanes; ++j) any |= below[j] != 0;
    if (!any) continue;
    for (int64_t j = c < begin ? begin : c; j < c + kLanes && j < block.count; ++j) {
      if (!(low[j - c] < rate)) continue;
      const float value = decision_value(space, x, row, y, block.rows[j], scratch);
      if (!(value < rate)) continue;
      firing = slowed(firing, block.times[j], rate, value);
      rate = value;
    }
  }
  clocks.rates[row] = rate;
  clocks.firing[row] = firing;
}

// A unit is a block of picks, which is packed once and applied to all rows that lack any of them.
int64_t advance(const Space& space, const Points& x, const Points& y, const Stale& stale,
                const Fired& fired, const Clocks& clocks, const Work& work) {
  const Scratch& packed = work.scratches[0];
  const int64_t block = work.center_block, units = (fired.count + block - 1) / block;
  int64_t unit = work.share.unit, done = 0;
  for (; unit < units && done < work.share.work; ++unit) {
    const int64_t start = unit * block;
    const int64_t size = fired.count - start < block ? fired.count - start : block;
    const Fired here{fired.rows + start, fired.times + start, size};
    int64_t count = 0;  // the rows that lack any of these
    while (count < stale.count && stale.first[count] < start + size) ++count;
    if (count == 0) continue;
    pack_centers(space, y, here.rows, size, packed);
    int64_t next = 0;
    in_parts(threads_for(count * size * space.columns, work.threads), [&](int part) {
      const Scratch& scratch = work.scratches[part];
      for (;;) {
        const int64_t row = __atomic_fetch_add(&next, kTileRows, __ATOMIC_RELAXED);
        if (row >= count) break;
        const int64_t rows = count - row < kTileRows ? count - row : kTileRows;
        const int64_t first = stale.first[row] > start ? stale.first[row] - start : 0;
        const int64_t begin = first / kPanel * kPanel;
        pack_rows(space, x, stale.rows + row, rows, scratch);
        multiply_panels(space, scratch.rows, packed.centers, begin, size, scratch.dots, block);
        *scratch.work += (size - begin + kPackWork) * kTileRows * space.columns;
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t own = stale.first[row + r] > start ? stale.first[row + r] - start : 0;
          if (own >= size) continue;
          advance_row(space, x, stale.rows[row + r], y, here, own, packed, scratch.dots + r * block,
                      clocks, scratch);
        }
      }
    });
    for (int t = 0; t < work.threads; ++t) {
      done += *work.scratches[t].work;
      *work.scratches[t].work = 0;
    }
  }
  return unit < units ? unit : kDone;
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace kmeans_plusplus
}  // namespace dynal

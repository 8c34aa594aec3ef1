// The filter: tiles of a matrix product, of float32 or of integers (shorts.inl), with the minimum
// of each row fused behind it. So distances are never stored; where the bounds of the filter do not
// decide, exact values do.
#pragma once

#include "exact.inl"
#include "kernels.h"
#include "shorts.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

inline float load_relaxed(const float* p) {
  float value;
  __atomic_load(p, &value, __ATOMIC_RELAXED);
  return value;
}

// Lowers *p to value; several threads may do so at once.
inline void lower_to(float* p, float value) {
  float seen = load_relaxed(p);
  while (value < seen &&
         !__atomic_compare_exchange(p, &seen, &value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// The next float above a non-negative value; +inf stays.
inline float just_above(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  bits += bits < 0x7f800000;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// Rows and centers that are multiplied together.
struct Tile {
  const int32_t* rows;
  int64_t row, row_count;  // position among the rows of all groups
  const int32_t* centers;
  int64_t center, center_count;  // position among the centers of all groups
  float slack;                   // of the bounds (farthest_first.h)
};

// The groups, cut into units of at most row_block rows and center_block centers of one group.
struct Units {
  const Groups& groups;
  int64_t row_block, center_block;

  int64_t begin_row(int64_t g) const { return begin_of(groups.row_ends, g); }
  int64_t begin_center(int64_t g) const { return begin_of(groups.center_ends, g); }
  int64_t row_blocks(int64_t g) const {
    return (groups.row_ends[g] - begin_row(g) + row_block - 1) / row_block;
  }
  int64_t count(int64_t g) const {
    const int64_t centers = groups.center_ends[g] - begin_center(g);
    return row_blocks(g) * ((centers + center_block - 1) / center_block);
  }
  Tile at(int64_t g, int64_t index) const {
    const int64_t row = begin_row(g) + index % row_blocks(g) * row_block;
    const int64_t center = begin_center(g) + index / row_blocks(g) * center_block;
    const int64_t rows = groups.row_ends[g] - row, centers = groups.center_ends[g] - center;
    return {groups.rows + row,
            row,
            rows < row_block ? rows : row_block,
            groups.centers + center,
            center,
            centers < center_block ? centers : center_block,
            0};
  }
};

constexpr int64_t kUnitWork = int64_t{1} << 30;  // multiplications of a unit, at most, about
constexpr int64_t kPackWork = 64;                // the cost of packing a value, in multiplications

// Calls use(tile, start, scratch) for the tiles of a share. start = first(tile) is the center where
// the tile's dot products begin, in scratch.dots (kTileRows, center_block).
template <typename First, typename Use>
int64_t multiply_groups(const Pairs& pairs, const Work& work, const First& first, const Use& use) {
  const Space& space = pairs.space;
  const Points &x = pairs.x, &y = pairs.y;
  const Groups& groups = pairs.groups;
  const Share share = work.share;
  const int64_t center_block = work.center_block;
  const int threads = work.threads;
  if (groups.count == 0) return kDone;
  int64_t row_block = groups.row_ends[groups.count - 1] / (4 * threads) / kTileRows * kTileRows;
  row_block = row_block < 4 * kTileRows ? 4 * kTileRows : row_block > 2048 ? 2048 : row_block;
  const int64_t short_block = kUnitWork / (center_block * space.columns) / kTileRows * kTileRows;
  if (row_block > short_block) row_block = short_block < kTileRows ? kTileRows : short_block;
  const Units units{groups, row_block, center_block};
  int64_t total = 0, next = share.unit, done = 0;
  int64_t comparisons = 0;
  for (int64_t g = 0; g < groups.count; ++g) {
    total += units.count(g);
    comparisons +=
        (groups.row_ends[g] - units.begin_row(g)) * (groups.center_ends[g] - units.begin_center(g));
  }
  bool in_floats = !in_shorts(space, comparisons);
  in_parts(threads_for(comparisons * space.columns, threads), [&](int part) {
    const Scratch& own = work.scratches[part];
    int64_t group = 0, before = 0;
    while (__atomic_load_n(&done, __ATOMIC_RELAXED) < share.work) {
      const int64_t index = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
      if (index >= total) break;
      while (index >= before + units.count(group)) before += units.count(group++);
      Tile unit = units.at(group, index - before);
      const bool shorts = !__atomic_load_n(&in_floats, __ATOMIC_RELAXED);
      unit.slack = shorts ? space.short_slack : space.slack;
      const bool packed = shorts && pairs.packed;
      Scratch scratch = own;
      if (shorts && pairs.panels) {
        const int64_t at = pairs.panels->begins[group] + unit.center - units.begin_center(group);
        scratch = with_panels(space, own, *pairs.panels, at);
      } else if (shorts) {
        pack_short_centers(space, y, unit.centers, unit.center_count, scratch);
      } else {
        pack_centers(space, y, unit.centers, unit.center_count, scratch);
      }
      int64_t products = 0;
      for (int64_t row = 0; row < unit.row_count; row += kTileRows) {
        Tile tile = unit;
        tile.rows += row;
        tile.row += row;
        tile.row_count = unit.row_count - row < kTileRows ? unit.row_count - row : kTileRows;
        const int64_t start = first(tile);
        if (start >= tile.center_count) continue;
        if (packed) {
          take_short_rows(space, *pairs.packed, pairs.packed->places + tile.row, tile.row_count,
                          scratch);
        } else if (shorts) {
          pack_short_rows(space, x, tile.rows, tile.row_count, scratch);
        } else {
          pack_rows(space, x, tile.rows, tile.row_count, scratch);
        }
        const int64_t panels = (tile.center_count - start + kPanel - 1) / kPanel;
        const int64_t ahead = unit.row_count - row - kTileRows;
        const int64_t following = packed ? 0 : ahead < kTileRows ? ahead : kTileRows;
        const int32_t* const next_rows = tile.rows + kTileRows;
        Prefetch left(x, space.left, next_rows, following, panels);
        Prefetch right(x.right, space.columns - space.left, next_rows,
                       is_product(space) ? following : 0, panels);
        for (int64_t c = start; c < tile.center_count; c += kPanel) {
          left.part();
          right.part();
          const int64_t end = c + kPanel < tile.center_count ? c + kPanel : tile.center_count;
          if (shorts) {
            multiply_short_panels(space, scratch, c, end, center_block);
          } else {
            multiply_panels(space, scratch.rows, scratch.centers, c, end, scratch.dots,
                            center_block);
          }
        }
        products += (tile.center_count - start + kPackWork) * kTileRows * space.columns;
        use(tile, start, scratch);
      }
      // Where the bounds leave too much open, as in clusters far from the mean, finer ones pay.
      if (*scratch.work > products) __atomic_store_n(&in_floats, true, __ATOMIC_RELAXED);
      *scratch.work += products;
      __atomic_fetch_add(&done, *scratch.work, __ATOMIC_RELAXED);
      *scratch.work = 0;
    }
  });
  return next < total ? next : kDone;
}

// The terms of a row in its lower and upper bounds.
struct RowTerms {
  float low, high;
  RowTerms(const Space& space, float slack, const Points& x, int64_t row)
      : low(x.norm(row) * (1 - slack) - space.absolute),
        high(x.norm(row) * (1 + slack) + space.absolute) {}
};

// min over c of term + terms[c] - 2 dots[c].
inline float smallest(float term, const float* terms, const float* dots, int64_t begin,
                      int64_t end) {
  vf least = splat(__builtin_inff());
  for (int64_t c = begin; c < end; c += kLanes) {
    const vf value = (term + load(terms + c)) - 2.0f * load(dots + c);
    least = value < least ? value : least;
  }
  float result = least[0];
  for (int i = 1; i < kLanes; ++i) result = least[i] < result ? least[i] : result;
  return result < 0 ? 0 : result;
}

// The minimum of `exact` and the decision values of a row with the centers of a tile. Values above
// `bound` may be left out.
inline float refresh_row(const Pairs& pairs, int64_t row, const Tile& tile, int64_t start,
                         const float* dots, float bound, float exact, const Scratch& scratch) {
  const Space& space = pairs.space;
  const Points &x = pairs.x, &y = pairs.y;
  const RowTerms terms(space, tile.slack, x, row);
  const int64_t end = round_up(tile.center_count, kLanes);
  float cut = just_above(bound) < exact ? just_above(bound) : exact;
  if (!(smallest(terms.low, scratch.low, dots, start, end) < cut)) return exact;
  const float least = just_above(smallest(terms.high, scratch.high, dots, start, end));
  cut = least < cut ? least : cut;
  for (int64_t c = start; c < tile.center_count; ++c) {
    float low = (terms.low + scratch.low[c]) - 2.0f * dots[c];
    low = low < 0 ? 0 : low;
    if (low < cut) {
      const float value = decision_value(space, x, row, y, tile.centers[c], scratch);
      exact = value < exact ? value : exact;
      cut = value < cut ? value : cut;
    }
  }
  return exact;
}

// Every dot product of a tile.
inline int64_t all_centers(const Tile&) { return 0; }

int64_t distances(const Pairs& pairs, float* lower, float* upper, const Work& work) {
  const int64_t columns = pairs.groups.center_ends[0];
  return multiply_groups(pairs, work, all_centers,
                         [&](const Tile& tile, int64_t, const Scratch& scratch) {
                           for (int64_t r = 0; r < tile.row_count; ++r) {
                             const RowTerms terms(pairs.space, tile.slack, pairs.x, tile.rows[r]);
                             const float* dots = scratch.dots + r * work.center_block;
                             float* low = lower + (tile.row + r) * columns + tile.center;
                             float* high = upper + (tile.row + r) * columns + tile.center;
                             for (int64_t c = 0; c < tile.center_count; ++c) {
                               const float value = (terms.low + scratch.low[c]) - 2.0f * dots[c];
                               low[c] = value < 0 ? 0 : value;
                               high[c] = (terms.high + scratch.high[c]) - 2.0f * dots[c];
                             }
                           }
                         });
}

int64_t bound(const Pairs& pairs, float* bound, const Work& work) {
  return multiply_groups(
      pairs, work, all_centers, [&](const Tile& tile, int64_t, const Scratch& scratch) {
        const int64_t end = round_up(tile.center_count, kLanes);
        for (int64_t r = 0; r < tile.row_count; ++r) {
          const RowTerms terms(pairs.space, tile.slack, pairs.x, tile.rows[r]);
          const float* dots = scratch.dots + r * work.center_block;
          lower_to(bound + tile.rows[r], smallest(terms.high, scratch.high, dots, 0, end));
        }
      });
}

int64_t refresh(const Pairs& pairs, const int32_t* first, const float* bound, float* exact,
                const Work& work) {
  return multiply_groups(
      pairs, work,
      [&](const Tile& tile) {
        const int64_t start = first ? first[tile.row] - tile.center : 0;
        return start < 0 ? 0 : start / kPanel * kPanel;
      },
      [&](const Tile& tile, int64_t start, const Scratch& scratch) {
        for (int64_t r = 0; r < tile.row_count; ++r) {
          const int64_t row = tile.rows[r];
          const float before = load_relaxed(exact + row);
          const float* dots = scratch.dots + r * work.center_block;
          const float value =
              refresh_row(pairs, row, tile, start, dots, bound[row], before, scratch);
          if (value < before) lower_to(exact + row, value);
        }
      });
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal

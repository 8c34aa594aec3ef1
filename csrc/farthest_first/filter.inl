// Farthest-first: the filter. Tiles of a float32 matrix product with the minimum fused behind it,
// so that no block of distances is ever stored; what the filter cannot tell is decided exactly.
#pragma once

#include <cstdint>

#include "farthest_first.h"

namespace dynal {
namespace DYNAL_ISA {
namespace {

using farthest_first::Groups;
using farthest_first::Picked;
using farthest_first::Points;
using farthest_first::Scratch;
using farthest_first::Share;
using farthest_first::Space;

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace dynal

#include "exact.inl"
#include "tile.inl"

namespace dynal {
namespace DYNAL_ISA {
namespace {

inline float load_relaxed(const float* p) {
  float value;
  __atomic_load(p, &value, __ATOMIC_RELAXED);
  return value;
}

// Lower *p to value; several threads may do so at once.
inline void lower_to(float* p, float value) {
  float seen = load_relaxed(p);
  while (value < seen &&
         !__atomic_compare_exchange(p, &seen, &value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// The least float above a value that is not negative; +inf stays.
inline float just_above(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  bits += bits < 0x7f800000;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// Rows and centers that are multiplied together: `rows` at most kTileRows, all packed centers.
struct Tile {
  const int32_t* rows;
  int64_t row, row_count;  // position among the rows of all groups
  const int32_t* centers;
  int64_t center, center_count;  // position among the centers of all groups
};

// The groups cut into units, each at most row_block rows and center_block centers of one group.
struct Units {
  const Groups& groups;
  int64_t row_block, center_block;

  int64_t begin_row(int64_t g) const { return g ? groups.row_ends[g - 1] : 0; }
  int64_t begin_center(int64_t g) const { return g ? groups.center_ends[g - 1] : 0; }
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
    return {groups.rows + row,       row,    rows < row_block ? rows : row_block,
            groups.centers + center, center, centers < center_block ? centers : center_block};
  }
};

constexpr int64_t kUnitWork = int64_t{1} << 30;  // multiplications in a unit, about, at most
constexpr int64_t kPackWork = 64;  // packing a value, in multiplications: dear where rows are wide

// Calls `use(tile, first_center, scratch)` for the tiles of the units of a share, with their dot
// products in scratch.dots (kTileRows, center_block) from the panel of `first_center(tile)` on.
template <typename First, typename Use>
int64_t multiply_groups(const Space& space, const Points& x, const Points& y, const Groups& groups,
                        int64_t center_block, Scratch* scratches, Share share, int threads,
                        const First& first, const Use& use) {
  if (groups.count == 0) return farthest_first::kDone;
  int64_t row_block = groups.row_ends[groups.count - 1] / (4 * threads) / kTileRows * kTileRows;
  row_block = row_block < 4 * kTileRows ? 4 * kTileRows : row_block > 2048 ? 2048 : row_block;
  const int64_t short_block = kUnitWork / (center_block * space.columns) / kTileRows * kTileRows;
  if (row_block > short_block) row_block = short_block < kTileRows ? kTileRows : short_block;
  const Units units{groups, row_block, center_block};
  int64_t total = 0, next = share.unit, done = 0;
  for (int64_t g = 0; g < groups.count; ++g) total += units.count(g);
#pragma omp parallel num_threads(threads)
  {
    const Scratch& scratch = scratches[thread_number()];
    int64_t group = 0, before = 0;
    while (__atomic_load_n(&done, __ATOMIC_RELAXED) < share.work) {
      const int64_t index = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
      if (index >= total) break;
      while (index >= before + units.count(group)) before += units.count(group++);
      const Tile unit = units.at(group, index - before);
      pack_centers(space, y, unit.centers, unit.center_count, scratch);
      for (int64_t row = 0; row < unit.row_count; row += kTileRows) {
        Tile tile = unit;
        tile.rows += row;
        tile.row += row;
        tile.row_count = unit.row_count - row < kTileRows ? unit.row_count - row : kTileRows;
        const int64_t start = first(tile);
        if (start >= tile.center_count) continue;
        pack_rows(space, x, tile.rows, tile.row_count, scratch);
        const int64_t ahead = unit.row_count - row - kTileRows;
        prefetch_rows(space, x, tile.rows + kTileRows, ahead < kTileRows ? ahead : kTileRows);
        multiply_panels(scratch, space.columns, start, tile.center_count, scratch.dots,
                        center_block);
        *scratch.work += (tile.center_count - start + kPackWork) * kTileRows * space.columns;
        use(tile, start, scratch);
      }
      __atomic_fetch_add(&done, *scratch.work, __ATOMIC_RELAXED);
      *scratch.work = 0;
    }
  }
  return next < total ? next : farthest_first::kDone;
}

// The two norm terms of the bounds of a row.
struct RowTerms {
  float low, high;
  RowTerms(const Space& space, const Points& x, int64_t row)
      : low(x.norms[row] * (1 - space.slack) - space.absolute),
        high(x.norms[row] * (1 + space.slack) + space.absolute) {}
};

// min over c of term + terms[c] - 2 dots[c].
inline float smallest(float term, const float* terms, const float* dots, int64_t begin,
                      int64_t end) {
  vf least = __builtin_inff() - vf{};
  for (int64_t c = begin; c < end; c += kFloats) {
    const vf value = (term + load(terms + c)) - 2.0f * load(dots + c);
    least = value < least ? value : least;
  }
  float result = least[0];
  for (int i = 1; i < kFloats; ++i) result = least[i] < result ? least[i] : result;
  return result < 0 ? 0 : result;
}

// The first position of the largest of count values, a multiple of kFloats.
inline int64_t first_largest(const float* values, int64_t count) {
  vf most = load(values);
  for (int64_t i = kFloats; i < count; i += kFloats) {
    const vf value = load(values + i);
    most = value > most ? value : most;
  }
  float largest = most[0];
  for (int i = 1; i < kFloats; ++i) largest = most[i] > largest ? most[i] : largest;
  int64_t at = 0;
  while (values[at] != largest) ++at;
  return at;
}

// Exact minimum of `exact` and the decision values of a row to the centers of a tile, as far as
// values above `bound` may be left out.
inline float refresh_row(const Space& space, const Points& x, int64_t row, const Points& y,
                         const Tile& tile, int64_t start, const float* dots, float bound,
                         float exact, const Scratch& scratch) {
  const RowTerms terms(space, x, row);
  const int64_t end = round_up(tile.center_count, kFloats);
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

}  // namespace

int64_t ff_distances(const Space& space, const Points& x, const Points& y, const Groups& groups,
                     float* lower, float* upper, int64_t center_block, Scratch* scratches,
                     Share share, int threads) {
  const int64_t columns = groups.center_ends[0];
  return multiply_groups(
      space, x, y, groups, center_block, scratches, share, threads, [](const Tile&) { return 0; },
      [&](const Tile& tile, int64_t, const Scratch& scratch) {
        for (int64_t r = 0; r < tile.row_count; ++r) {
          const RowTerms terms(space, x, tile.rows[r]);
          const float* dots = scratch.dots + r * center_block;
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

int64_t ff_bound(const Space& space, const Points& x, const Points& y, const Groups& groups,
                 float* bound, int64_t center_block, Scratch* scratches, Share share, int threads) {
  return multiply_groups(
      space, x, y, groups, center_block, scratches, share, threads, [](const Tile&) { return 0; },
      [&](const Tile& tile, int64_t, const Scratch& scratch) {
        const int64_t end = round_up(tile.center_count, kFloats);
        for (int64_t r = 0; r < tile.row_count; ++r) {
          const RowTerms terms(space, x, tile.rows[r]);
          lower_to(bound + tile.rows[r],
                   smallest(terms.high, scratch.high, scratch.dots + r * center_block, 0, end));
        }
      });
}

int64_t ff_refresh(const Space& space, const Points& x, const Points& y, const Groups& groups,
                   const int32_t* first, const float* bound, float* exact, int64_t center_block,
                   Scratch* scratches, Share share, int threads) {
  return multiply_groups(
      space, x, y, groups, center_block, scratches, share, threads,
      [&](const Tile& tile) {
        const int64_t start = first ? first[tile.row] - tile.center : 0;
        return start < 0 ? 0 : start / kPanel * kPanel;
      },
      [&](const Tile& tile, int64_t start, const Scratch& scratch) {
        for (int64_t r = 0; r < tile.row_count; ++r) {
          const int64_t row = tile.rows[r];
          const float before = load_relaxed(exact + row);
          const float value =
              refresh_row(space, x, row, y, tile, start, scratch.dots + r * center_block,
                          bound[row], before, scratch);
          if (value < before) lower_to(exact + row, value);
        }
      });
}

constexpr int64_t kScanWork = 32;  // a pick's look at a row of the head, in multiplications

// Packs the head once; dot products of a row with the whole head are computed when it is about
// to be picked, together with those of the kTileRows - 1 rows most likely to follow.
Picked ff_traverse(const Space& space, const Points& x, const int32_t* head, int64_t count,
                   int64_t outside, float* exact, int32_t* picks, float* values, int64_t limit,
                   Scratch* scratches, const Scratch& packed, float* products, int32_t* slots,
                   int64_t slot_count, int64_t work, int threads) {
  const int64_t padded = round_up(count, kPanel), panels = padded / kPanel;
  float* const left = products;           // (padded,): exact, in order of the head; -inf: picked
  float* const dots = products + padded;  // (slot_count, padded): a row's products in its slot
  int32_t* const slot_of = slots;         // (count,): -1 without one
  int32_t* const owner = slots + count;   // (slot_count,): -1 while free
  for (int64_t i = 0; i < count + slot_count; ++i) slots[i] = -1;
  int64_t next_slot = 0;
  pack_centers(space, x, head, count, packed);
  for (int64_t i = 0; i < padded; ++i) left[i] = i < count ? exact[head[i]] : -__builtin_inff();
  int64_t picked = 0;
  bool done = limit == 0;
  while (!done && *scratches[0].work < work) {
    *scratches[0].work += kScanWork * padded;
    const int64_t best = first_largest(left, padded);
    int32_t bits;
    __builtin_memcpy(&bits, left + best, 4);
    const int64_t key = (static_cast<int64_t>(bits) << 32) + (0x7fffffff - head[best]);
    done = left[best] < 0 || key <= outside;
    if (done) break;
    if (slot_of[best] < 0) {
      // The highest of the rows without a slot, the pick and its likely successors, take the
      // slots that were filled longest ago.
      int32_t next[kTileRows], rows[kTileRows];
      int64_t found = 0;
      for (int64_t i = 0; i < count; ++i) {
        if (slot_of[i] >= 0 || left[i] < 0) continue;
        if (found == kTileRows && !(left[i] > left[next[kTileRows - 1]])) continue;
        int64_t at = found < kTileRows ? found++ : kTileRows - 1;
        for (; at > 0 && left[i] > left[next[at - 1]]; --at) next[at] = next[at - 1];
        next[at] = static_cast<int32_t>(i);
      }
      for (int64_t i = 0; i < found; ++i) {
        rows[i] = head[next[i]];
        if (owner[next_slot] >= 0) slot_of[owner[next_slot]] = -1;
        owner[next_slot] = next[i];
        slot_of[next[i]] = static_cast<int32_t>(next_slot);
        next_slot = next_slot + 1 < slot_count ? next_slot + 1 : 0;
      }
      pack_rows(space, x, rows, found, scratches[0]);
      *scratches[0].work += kTileRows * padded * space.columns;
#pragma omp parallel for num_threads(threads) schedule(static)
      for (int64_t p = 0; p < panels; ++p) {
        float tile[kTileRows * kPanel];
        multiply_tile<2>(scratches[0].rows, packed.centers + p * kPanel * space.columns,
                         space.columns, tile, kPanel);
        for (int64_t i = 0; i < kTileRows && i < found; ++i) {
          __builtin_memcpy(dots + slot_of[next[i]] * padded + p * kPanel, tile + i * kPanel,
                           kPanel * sizeof(float));
        }
      }
    }
    picks[picked] = head[best];
    values[picked++] = left[best];
    done = picked == limit;
    left[best] = -__builtin_inff();
    const RowTerms terms(space, x, head[best]);
    const float* row = dots + slot_of[best] * padded;
    for (int64_t i = 0; i < count; i += kFloats) {
      const vf low = (terms.low + load(packed.low + i)) - 2.0f * load(row + i);
      const vf now = load(left + i);
      const auto below = low < now;
      bool any = false;
      for (int j = 0; j < kFloats; ++j) any |= below[j] != 0;
      if (!any) continue;
      for (int64_t j = i; j < i + kFloats; ++j) {
        if (!(low[j - i] < left[j]) || left[j] == 0) continue;
        const float value = decision_value(space, x, head[j], x, head[best], scratches[0]);
        if (value < left[j]) left[j] = value;
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) exact[head[i]] = left[i];
  return {picked, done};
}

}  // namespace DYNAL_ISA
}  // namespace dynal

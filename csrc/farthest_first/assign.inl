// The nearest center of each row, as a key: the bits of the decision value, which is not negative,
// above the rank of the center. So the lowest key is the answer.
#pragma once

#include "filter.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

inline int64_t key_of(float value, int32_t rank) {
  int32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return (static_cast<int64_t>(bits) << 32) + rank;
}

inline float value_of_key(int64_t key) {
  const int32_t bits = static_cast<int32_t>(key >> 32);
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// Lowers *p to key; several threads may do so at once.
inline void lower_key_to(int64_t* p, int64_t key) {
  int64_t seen = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (key < seen &&
         !__atomic_compare_exchange_n(p, &seen, key, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// The lowest of `key` and the keys of a row with the centers of a tile. Values above `bound` may be
// left out.
inline int64_t assign_row(const Pairs& pairs, int64_t row, const Tile& tile, const int32_t* ranks,
                          const float* dots, float bound, int64_t key, const Scratch& scratch) {
  const Space& space = pairs.space;
  const Points &x = pairs.x, &y = pairs.y;
  const RowTerms terms(space, tile.slack, x, row);
  const int64_t end = round_up(tile.center_count, kLanes);
  const float known = value_of_key(key);
  float cut = bound < known ? bound : known;
  if (smallest(terms.low, scratch.low, dots, 0, end) > cut) return key;
  const float least = smallest(terms.high, scratch.high, dots, 0, end);
  cut = least < cut ? least : cut;
  for (int64_t c = 0; c < tile.center_count; ++c) {
    float low = (terms.low + scratch.low[c]) - 2.0f * dots[c];
    low = low < 0 ? 0 : low;
    const int32_t rank = ranks[tile.centers[c]];
    if (low > cut || key_of(low, rank) >= key) continue;
    const float value = decision_value(space, x, row, y, tile.centers[c], scratch);
    const int64_t found = key_of(value, rank);
    key = found < key ? found : key;
    cut = value < cut ? value : cut;
  }
  return key;
}

int64_t assign(const Pairs& pairs, const int32_t* ranks, const float* bound, int64_t* keys,
               const Work& work) {
  return multiply_groups(
      pairs, work, all_centers, [&](const Tile& tile, int64_t, const Scratch& scratch) {
        for (int64_t r = 0; r < tile.row_count; ++r) {
          const int64_t row = tile.rows[r];
          const int64_t before = __atomic_load_n(keys + row, __ATOMIC_RELAXED);
          const float* dots = scratch.dots + r * work.center_block;
          const int64_t key =
              assign_row(pairs, row, tile, ranks, dots, bound[row], before, scratch);
          if (key < before) lower_key_to(keys + row, key);
        }
      });
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal

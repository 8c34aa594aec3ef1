// Farthest-first: the nearest center of each row, as a key: the bits of the decision value, which
// is not negative, above the rank of the center, so that the lowest key is the answer.
#include "filter.inl"

namespace dynal {
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

// Lower *p to key; several threads may do so at once.
inline void lower_key_to(int64_t* p, int64_t key) {
  int64_t seen = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (key < seen &&
         !__atomic_compare_exchange_n(p, &seen, key, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

// The lowest of `key` and those of a row with the centers of a tile, as far as values above `bound`
// may be left out.
inline int64_t assign_row(const Space& space, const Points& x, int64_t row, const Points& y,
                          const Tile& tile, const int32_t* ranks, const float* dots, float bound,
                          int64_t key, const Scratch& scratch) {
  const RowTerms terms(space, x, row);
  const int64_t end = round_up(tile.center_count, kFloats);
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

}  // namespace

int64_t ff_assign(const Space& space, const Points& x, const Points& y, const Groups& groups,
                  const int32_t* ranks, const float* bound, int64_t* keys, int64_t center_block,
                  Scratch* scratches, Share share, int threads) {
  return multiply_groups(
      space, x, y, groups, center_block, scratches, share, threads, [](const Tile&) { return 0; },
      [&](const Tile& tile, int64_t, const Scratch& scratch) {
        for (int64_t r = 0; r < tile.row_count; ++r) {
          const int64_t row = tile.rows[r];
          const int64_t before = __atomic_load_n(keys + row, __ATOMIC_RELAXED);
          const int64_t key =
              assign_row(space, x, row, y, tile, ranks, scratch.dots + r * center_block, bound[row],
                         before, scratch);
          if (key < before) lower_key_to(keys + row, key);
        }
      });
}

}  // namespace DYNAL_ISA
}  // namespace dynal

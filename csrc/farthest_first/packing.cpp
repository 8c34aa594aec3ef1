#include "packing.h"

#include <algorithm>

#include "../isa/kernels.h"
#include "clusters.h"
#include "workspace.h"

namespace dynal {
namespace farthest_first {

Packing::Packing(const Pairs& pairs, const Work& work) : pairs_(pairs) {
  const Space& space = pairs.space;
  const Groups& groups = pairs.groups;
  if (groups.count < 2 || !packs(space)) return;
  int64_t comparisons = 0;
  for (int64_t g = 0; g < groups.count; ++g) {
    comparisons += size_of(groups.row_ends, g) * size_of(groups.center_ends, g);
  }
  if (comparisons * space.columns < kShortWork) return;
  const int64_t width = round_up(space.columns, 8), bytes = 2 * width;
  const std::vector<int32_t> rows = distinct(kPackedBytes / bytes);
  if (rows.empty()) return;
  const int64_t count = static_cast<int64_t>(rows.size());
  rows_.reset(new int16_t[count * width]);
  units_.resize(count);
  packed_ = {rows_.get(), units_.data(), places_.data()};
  kernels().farthest_first.pack_rows(space, pairs.x, rows.data(), count, packed_, work);
  pairs_.packed = &packed_;
}

// Empty where there are more than `most`, or hardly any is in two groups.
std::vector<int32_t> Packing::distinct(int64_t most) {
  const Groups& groups = pairs_.groups;
  const int64_t count = groups.row_ends[groups.count - 1];
  int64_t slots = 64;
  while (slots < 2 * std::min(count, most + 1)) slots *= 2;
  std::vector<int32_t> rows, table(slots, -1);  // open addressing: positions among `rows`
  places_.resize(count);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t row = groups.rows[i];
    uint64_t at = static_cast<uint32_t>(row) * uint64_t{0x9e3779b97f4a7c15} >> 20;
    for (at &= slots - 1; table[at] >= 0 && rows[table[at]] != row; at = (at + 1) & (slots - 1)) {
    }
    if (table[at] < 0) {
      if (static_cast<int64_t>(rows.size()) == most) return {};
      table[at] = static_cast<int32_t>(rows.size());
      rows.push_back(row);
    }
    places_[i] = table[at];
  }
  if (2 * static_cast<int64_t>(rows.size()) > count) return {};
  return rows;
}

}  // namespace farthest_first
}  // namespace dynal

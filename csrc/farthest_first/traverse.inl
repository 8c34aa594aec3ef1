// Picks among the rows of a head. The head is packed once. A row's dot products with the whole head
// are computed when it is about to be picked, together with those of the kTileRows - 1 rows most
// likely to follow.
#pragma once

#include "exact.inl"
#include "filter.inl"
#include "kernels.h"
#include "tile.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

constexpr int64_t kScanWork = 32;  // the cost of a pick per row of the head, in multiplications

// The first position of the largest of `count` values; count is a multiple of kLanes.
inline int64_t first_largest(const float* values, int64_t count) {
  vf most = load(values);
  for (int64_t i = kLanes; i < count; i += kLanes) {
    const vf value = load(values + i);
    most = value > most ? value : most;
  }
  float largest = most[0];
  for (int i = 1; i < kLanes; ++i) largest = most[i] > largest ? most[i] : largest;
  int64_t at = 0;
  while (values[at] != largest) ++at;
  return at;
}

Picked traverse(const Space& space, const Points& x, const Head& head, float* exact,
                const Picks& picks, const HeadMemory& memory, const Work& work) {
  const int32_t* const rows = head.rows;
  const Scratch &scratch = work.scratches[0], &packed = memory.packed;
  const int64_t count = head.count, slot_count = memory.slot_count;
  const int64_t padded = round_up(count, kPanel), panels = padded / kPanel;
  float* const left = memory.floats;         // (padded,): exact, in order of the head; -inf: picked
  float* const dots = left + padded;         // (slot_count, padded): a row's products in its slot
  int32_t* const slot_of = memory.integers;  // (count,): -1 without one
  int32_t* const owner = slot_of + count;    // (slot_count,): -1 while free
  for (int64_t i = 0; i < count + slot_count; ++i) slot_of[i] = -1;
  int64_t next_slot = 0;
  pack_centers(space, x, rows, count, packed);
  for (int64_t i = 0; i < padded; ++i) left[i] = i < count ? exact[rows[i]] : -__builtin_inff();
  int64_t picked = 0;
  bool done = picks.limit == 0;
  while (!done && *scratch.work < work.share.work) {
    *scratch.work += kScanWork * padded;
    const int64_t best = first_largest(left, padded);
    int32_t bits;
    __builtin_memcpy(&bits, left + best, 4);
    const int64_t key = (static_cast<int64_t>(bits) << 32) + (0x7fffffff - rows[best]);
    done = left[best] < 0 || key <= head.outside;
    if (done) break;
    if (slot_of[best] < 0) {
      // The farthest rows without a slot, the pick and its likely successors, take the slots that
      // were filled longest ago.
      int32_t next[kTileRows], packed_rows[kTileRows];
      int64_t found = 0;
      for (int64_t i = 0; i < count; ++i) {
        if (slot_of[i] >= 0 || left[i] < 0) continue;
        if (found == kTileRows && !(left[i] > left[next[kTileRows - 1]])) continue;
        int64_t at = found < kTileRows ? found++ : kTileRows - 1;
        for (; at > 0 && left[i] > left[next[at - 1]]; --at) next[at] = next[at - 1];
        next[at] = static_cast<int32_t>(i);
      }
      for (int64_t i = 0; i < found; ++i) {
        packed_rows[i] = rows[next[i]];
        if (owner[next_slot] >= 0) slot_of[owner[next_slot]] = -1;
        owner[next_slot] = next[i];
        slot_of[next[i]] = static_cast<int32_t>(next_slot);
        next_slot = next_slot + 1 < slot_count ? next_slot + 1 : 0;
      }
      pack_rows(space, x, packed_rows, found, scratch);
      *scratch.work += kTileRows * padded * space.columns;
#pragma omp parallel for num_threads(work.threads) schedule(static)
      for (int64_t p = 0; p < panels; ++p) {
        float tile[kTileRows * kPanel];
        multiply_tile<2>(scratch.rows, packed.centers + p * kPanel * space.columns, space.columns,
                         tile, kPanel);
        for (int64_t i = 0; i < kTileRows && i < found; ++i) {
          __builtin_memcpy(dots + slot_of[next[i]] * padded + p * kPanel, tile + i * kPanel,
                           kPanel * sizeof(float));
        }
      }
    }
    picks.rows[picked] = rows[best];
    picks.values[picked++] = left[best];
    done = picked == picks.limit;
    left[best] = -__builtin_inff();
    const RowTerms terms(space, x, rows[best]);
    const float* row_dots = dots + slot_of[best] * padded;
    for (int64_t i = 0; i < count; i += kLanes) {
      const vf low = (terms.low + load(packed.low + i)) - 2.0f * load(row_dots + i);
      const vf now = load(left + i);
      const auto below = low < now;
      bool any = false;
      for (int j = 0; j < kLanes; ++j) any |= below[j] != 0;
      if (!any) continue;
      for (int64_t j = i; j < i + kLanes; ++j) {
        if (!(low[j - i] < left[j]) || left[j] == 0) continue;
        const float value = decision_value(space, x, rows[j], x, rows[best], scratch);
        if (value < left[j]) left[j] = value;
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) exact[rows[i]] = left[i];
  return {picked, done};
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal

// The rows of a head and their dot products. The head is packed once. A row's products with the
// whole head are computed when it is about to be picked, together with those of the kTileRows - 1
// rows most likely to follow.
#pragma once

#include "kernels.h"
#include "tile.inl"

namespace dynal {
namespace farthest_first {
namespace DYNAL_ISA {
namespace {

struct HeadProducts {
  const Space& space;
  const Points& x;
  const int32_t* rows;  // (count,)
  int64_t count, padded;
  const HeadMemory& memory;
  const Work& work;
  float* const dots;       // (slot_count, padded): a row's products in its slot
  int32_t* const slot_of;  // (count,): -1 without one
  int32_t* const owner;    // (slot_count,): -1 while free
  int64_t next_slot;

  HeadProducts(const Space& s, const Points& points, const int32_t* head, int64_t size,
               const HeadMemory& m, const Work& w)
      : space(s),
        x(points),
        rows(head),
        count(size),
        padded(round_up(size, kPanel)),
        memory(m),
        work(w),
        dots(m.floats + padded),
        slot_of(m.integers),
        owner(m.integers + size),
        next_slot(0) {
    for (int64_t i = 0; i < count + memory.slot_count; ++i) slot_of[i] = -1;
    pack_centers(space, x, rows, count, memory.packed);
  }

  // The products of the row at `best` with the head, (padded,). open(i): whether position i may
  // still be picked; before(i, j): whether i is likely to be picked before j. Nothing is before
  // `best`.
  template <typename Open, typename Before>
  const float* of(int64_t best, const Open& open, const Before& before) {
    if (slot_of[best] < 0) multiply(open, before);
    return dots + slot_of[best] * padded;
  }

 private:
  // The next rows without a slot take the slots that were filled longest ago.
  template <typename Open, typename Before>
  void multiply(const Open& open, const Before& before) {
    const Scratch& scratch = work.scratches[0];
    int32_t next[kTileRows], packed_rows[kTileRows];
    int64_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (slot_of[i] >= 0 || !open(i)) continue;
      if (found == kTileRows && !before(i, next[kTileRows - 1])) continue;
      int64_t at = found < kTileRows ? found++ : kTileRows - 1;
      for (; at > 0 && before(i, next[at - 1]); --at) next[at] = next[at - 1];
      next[at] = static_cast<int32_t>(i);
    }
    for (int64_t i = 0; i < found; ++i) {
      packed_rows[i] = rows[next[i]];
      if (owner[next_slot] >= 0) slot_of[owner[next_slot]] = -1;
      owner[next_slot] = next[i];
      slot_of[next[i]] = static_cast<int32_t>(next_slot);
      next_slot = next_slot + 1 < memory.slot_count ? next_slot + 1 : 0;
    }
    pack_rows(space, x, packed_rows, found, scratch);
    *scratch.work += kTileRows * padded * space.columns;
    const int64_t panels = padded / kPanel;
    const int parts = threads_for(kTileRows * padded * space.columns, work.threads);
    in_parts(parts, [&](int part) {
      for (int64_t p = panels * part / parts; p < panels * (part + 1) / parts; ++p) {
        float tile[kTileRows * kPanel];
        multiply_panel<2>(space, scratch.rows, memory.packed.centers + p * kPanel * space.columns,
                          tile, kPanel);
        for (int64_t i = 0; i < kTileRows && i < found; ++i) {
          __builtin_memcpy(dots + slot_of[next[i]] * padded + p * kPanel, tile + i * kPanel,
                           kPanel * sizeof(float));
        }
      }
    });
  }
};

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace farthest_first
}  // namespace dynal

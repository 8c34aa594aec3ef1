// Picks among the rows of a head.
#pragma once

#include "exact.inl"
#include "filter.inl"
#include "head.inl"

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
  const Scratch& scratch = work.scratches[0];
  const int64_t count = head.count;
  HeadProducts products(space, x, rows, count, memory, work);
  const Scratch& packed = memory.packed;
  const int64_t padded = products.padded;
  float* const left = memory.floats;  // (padded,): exact, in order of the head; -inf: picked
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
    const float* row_dots = products.of(
        best, [&](int64_t i) { return left[i] >= 0; },
        [&](int64_t i, int64_t j) { return left[i] > left[j]; });
    picks.rows[picked] = rows[best];
    picks.values[picked++] = left[best];
    done = picked == picks.limit;
    left[best] = -__builtin_inff();
    const RowTerms terms(space, space.slack, x, rows[best]);
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

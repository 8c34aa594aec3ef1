// The race inside a field of rows: the first to fire is picked, and slows the others down.
#pragma once

#include "../farthest_first/head.inl"
#include "advance.inl"

namespace dynal {
namespace kmeans_plusplus {
namespace DYNAL_ISA {
namespace {

constexpr int64_t kScanWork = 32;  // the cost of a pick per row of the field, in multiplications

// The first position of the smallest of `count` times.
inline int64_t first_to_fire(const double* times, int64_t count) {
  int64_t best = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (times[i] < times[best]) best = i;
  }
  return best;
}

Picked race(const Space& space, const Points& x, const Field& field, const Clocks& clocks,
            const Finish& finish, const HeadMemory& memory, double* times, const Work& work) {
  const Scratch &scratch = work.scratches[0], &packed = memory.packed;
  const int32_t* const rows = field.rows;
  const int64_t count = field.count;
  HeadProducts products(space, x, rows, count, memory, work);
  float* const rates = memory.floats;  // (padded,): in order of the field, 0 once picked
  for (int64_t i = 0; i < products.padded; ++i) rates[i] = i < count ? clocks.rates[rows[i]] : 0;
  for (int64_t i = 0; i < count; ++i) times[i] = clocks.firing[rows[i]];
  int64_t picked = 0;
  bool done = finish.limit == 0;
  while (!done && *scratch.work < work.share.work) {
    *scratch.work += kScanWork * products.padded;
    const int64_t best = first_to_fire(times, count);
    const double time = times[best];
    done = !(time < field.outside);
    if (done) break;
    const float* dots = products.of(
        best, [&](int64_t i) { return times[i] < field.outside; },
        [&](int64_t i, int64_t j) { return times[i] < times[j]; });
    finish.rows[picked] = rows[best];
    finish.values[picked] = rates[best];
    finish.times[picked++] = time;
    done = picked == finish.limit;
    times[best] = __builtin_inf();
    rates[best] = 0;
    const RowTerms terms(space, space.slack, x, rows[best]);
    for (int64_t i = 0; i < count; i += kLanes) {
      const vf low = (terms.low + load(packed.low + i)) - 2.0f * load(dots + i);
      const auto below = low < load(rates + i);
      bool any = false;
      for (int j = 0; j < kLanes; ++j) any |= below[j] != 0;
      if (!any) continue;
      for (int64_t j = i; j < i + kLanes; ++j) {
        if (!(low[j - i] < rates[j]) || rates[j] == 0) continue;
        const float value = decision_value(space, x, rows[j], x, rows[best], scratch);
        if (!(value < rates[j])) continue;
        times[j] = slowed(times[j], time, rates[j], value);
        rates[j] = value;
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    clocks.rates[rows[i]] = rates[i];
    clocks.firing[rows[i]] = times[i];
  }
  return {picked, done};
}

}  // namespace
}  // namespace DYNAL_ISA
}  // namespace kmeans_plusplus
}  // namespace dynal

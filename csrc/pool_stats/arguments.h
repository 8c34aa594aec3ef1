// What Python passes for a tracker and for a head: addresses and sizes.
#pragma once

#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "pool_stats.h"

namespace dynal {
namespace pool_stats {

constexpr int kStateTensors = 19;

// pass_stamp, stamp, samples, unknown_ids, state, bytes of a label count, of an output
using Tracker = std::tuple<uintptr_t, uintptr_t, int64_t, uintptr_t,
                           std::array<uintptr_t, kStateTensors>, int, int>;
// features, weight, bias, width
using Linear = std::tuple<uintptr_t, uintptr_t, uintptr_t, int64_t>;

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// The tensors in the order of STATE in dynal_fast/ops/pool_stats/contract.py.
inline State state_of(const Tracker& tracker, int64_t classes) {
  State state{};
  int i = 0;
  auto next = [&](auto& member) {
    member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(std::get<4>(tracker)[i++]);
  };
  next(state.count);
  next(state.mean);
  next(state.m2);
  next(state.class_m2);
  next(state.entropy_sum);
  next(state.logit_count);
  next(state.logit_mean);
  next(state.logit_m2);
  next(state.label_counts);
  next(state.increase_count);
  next(state.increase_sum);
  next(state.previous_output);
  next(state.output);
  next(state.latest_output);
  next(state.cycle_discrepancy);
  next(state.teacher_discrepancy);
  next(state.last_entropy);
  next(state.last_top);
  next(state.last_margin);
  state.classes = classes;
  state.pass_stamp = pointer<const int32_t>(std::get<0>(tracker));
  state.stamp = pointer<int32_t>(std::get<1>(tracker));
  state.num_samples = std::get<2>(tracker);
  state.unknown_ids = pointer<int64_t>(std::get<3>(tracker));
  state.label_bytes = std::get<5>(tracker);
  state.output_bytes = std::get<6>(tracker);
  return state;
}

inline Head head_of(const Linear& linear) {
  return {pointer<const void>(std::get<0>(linear)), pointer<const void>(std::get<1>(linear)),
          pointer<const void>(std::get<2>(linear)), std::get<3>(linear)};
}

}  // namespace pool_stats
}  // namespace dynal

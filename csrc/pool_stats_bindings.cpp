#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "pool_stats.h"

namespace py = pybind11;

namespace dynal {
namespace {

using pool_stats::Batch;
using pool_stats::Float;
using pool_stats::State;

constexpr int kStateTensors = 18;

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// In the order of STATE in dynal_fast/ops/pool_stats/contract.py.
State state_of(const std::array<uintptr_t, kStateTensors>& tensors) {
  State state{};
  int i = 0;
  auto next = [&](auto& member) {
    member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(tensors[i++]);
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
  next(state.cycle_discrepancy);
  next(state.teacher_discrepancy);
  next(state.last_entropy);
  next(state.last_top);
  next(state.last_margin);
  return state;
}

}  // namespace
}  // namespace dynal

using namespace dynal;

void bind_pool_stats(py::module_& m) {
  using Tracker = std::tuple<uintptr_t, uintptr_t, int64_t, uintptr_t,
                             std::array<uintptr_t, kStateTensors>, int, int>;
  using Linear = std::tuple<uintptr_t, uintptr_t, uintptr_t, int64_t>;
  const auto update = [](const Tracker& tracker, int64_t classes, const Batch& batch, int threads) {
    State state = state_of(std::get<4>(tracker));
    state.classes = classes;
    state.pass_stamp = pointer<const int32_t>(std::get<0>(tracker));
    state.stamp = pointer<int32_t>(std::get<1>(tracker));
    state.num_samples = std::get<2>(tracker);
    state.unknown_ids = pointer<int64_t>(std::get<3>(tracker));
    state.label_bytes = std::get<5>(tracker);
    state.output_bytes = std::get<6>(tracker);
    py::gil_scoped_release release;
    pool_stats::update(state, batch, threads);
  };
  const auto head = [](const Linear& linear) {
    return pool_stats::Head{pointer<const void>(std::get<0>(linear)),
                            pointer<const void>(std::get<1>(linear)),
                            pointer<const void>(std::get<2>(linear)), std::get<3>(linear)};
  };
  m.def(
      "pool_stats_update",
      [=](uintptr_t ids, int id_bytes, int64_t rows, int64_t classes, int dtype, uintptr_t logits,
          uintptr_t teacher_logits, const Tracker& tracker, int threads) {
        Batch batch{};
        batch.rows = rows;
        batch.ids = pointer<const void>(ids);
        batch.id_bytes = id_bytes;
        batch.dtype = static_cast<Float>(dtype);
        batch.logits = pointer<const void>(logits);
        batch.teacher_logits = pointer<const void>(teacher_logits);
        update(tracker, classes, batch, threads);
      },
      "Fold a batch of logits into the pool statistics: see dynal_fast.ops.pool_stats.");
  m.def(
      "pool_stats_update_from_features",
      [=](uintptr_t ids, int id_bytes, int64_t rows, int64_t classes, int dtype,
          const Linear& linear, const Linear& teacher, const Tracker& tracker, int threads) {
        Batch batch{};
        batch.rows = rows;
        batch.ids = pointer<const void>(ids);
        batch.id_bytes = id_bytes;
        batch.dtype = static_cast<Float>(dtype);
        batch.head = head(linear);
        batch.teacher_head = head(teacher);
        update(tracker, classes, batch, threads);
      },
      "The same from features and a linear head (features, weight, bias, width).");
}

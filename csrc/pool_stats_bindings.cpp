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
  m.def(
      "pool_stats_update",
      [](uintptr_t ids, int id_bytes, int64_t rows, uintptr_t logits, uintptr_t teacher_logits,
         int dtype, int64_t classes, uintptr_t pass_stamp, uintptr_t stamp, int64_t num_samples,
         uintptr_t unknown_ids, const std::array<uintptr_t, kStateTensors>& tensors,
         int label_bytes, int output_bytes, int threads) {
        State state = state_of(tensors);
        state.num_samples = num_samples;
        state.classes = classes;
        state.pass_stamp = pointer<const int32_t>(pass_stamp);
        state.stamp = pointer<int32_t>(stamp);
        state.unknown_ids = pointer<int64_t>(unknown_ids);
        state.label_bytes = label_bytes;
        state.output_bytes = output_bytes;
        Batch batch{};
        batch.rows = rows;
        batch.ids = pointer<const void>(ids);
        batch.id_bytes = id_bytes;
        batch.dtype = static_cast<Float>(dtype);
        batch.logits = pointer<const void>(logits);
        batch.teacher_logits = pointer<const void>(teacher_logits);
        py::gil_scoped_release release;
        pool_stats::update(state, batch, threads);
      },
      "Fold a batch into the pool statistics: see dynal_fast.ops.pool_stats.");
}
